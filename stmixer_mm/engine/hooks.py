"""Hooks that keep checkpoints whole and refuse checkpoints and models that do not fit."""

import os.path as osp
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, find_latest_checkpoint
from torch.utils.data import DataLoader

from stmixer_mm.engine.checkpoints import check_state, state_dict_of
from stmixer_mm.errors import UserError
from stmixer_mm.files import ATOMIC_BACKEND, part_path, write_atomically
from stmixer_mm.models.detectors.base import ClipDetector
from stmixer_mm.models.shapes import trace_shapes, unnoticed
from stmixer_mm.registry import HOOKS


@HOOKS.register_module()
class CheckCheckpointHook(Hook):
    """Stop before a checkpoint of another architecture is loaded.

    mmengine loads what fits and only warns of the rest.

    Args:
        allow (Sequence[str]): Regular expressions; parameters in whose name one of
            them is found may be missing, left over or of another shape (for
            fine-tuning with another number of classes, say).

    Raises:
        ValueError: at loading, with the names that are missing, left over or of
            another shape.
    """

    # Before EMAHook, which changes what it finds in the checkpoint.
    priority = 'VERY_HIGH'

    def __init__(self, *, allow: Sequence[str] = ()) -> None:
        self.allow = (allow,) if isinstance(allow, str) else tuple(allow)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        source = runner._load_from or find_latest_checkpoint(runner.work_dir)
        state = state_dict_of(checkpoint, source=source)
        check_state(runner.model, state, source=source, allow=self.allow)


@HOOKS.register_module()
class CheckModelHook(Hook):
    """Stop before a run whose model does not fit its data.

    The model's number of classes is compared with those of the datasets and the
    metrics, and what it reads of feature maps with those of a sample of each dataset.

    Raises:
        UserError: with the two numbers that differ, and where to set the model's.
    """

    # Before weights are loaded.
    priority = 'VERY_HIGH'

    def before_run(self, runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not isinstance(model, ClipDetector):
            return
        for split in ('train', 'val', 'test'):
            loop = getattr(runner, f'_{split}_loop')
            if not isinstance(loop, BaseLoop):
                continue
            check_classes(model, loop)
            context, optim = nullcontext(), runner.optim_wrapper
            if split == 'train' and isinstance(optim, OptimWrapper):
                context = optim.optim_context(model)  # of mixed precision
            with context:
                check_sample(model, loop.dataloader)


def check_classes(model: ClipDetector, loop: BaseLoop) -> None:
    """Compare the model with a loop's dataset and metrics, as far as these know."""
    dataset = loop.dataloader.dataset
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    numbers = {} if classes is None else {type(dataset).__name__: len(classes) + 1}
    for metric in loop.evaluator.metrics if hasattr(loop, 'evaluator') else ():
        if isinstance(getattr(metric, 'num_classes', None), int):
            numbers[type(metric).__name__] = metric.num_classes
    for name, number in numbers.items():
        if number != model.num_classes:
            raise UserError(
                f'{name} has {number} classes, the dummy class 0 among them, but the '
                f'model has {model.num_classes}; set {model.num_classes_key}={number}, '
                'or correct the label file.'
            )


def check_sample(model: ClipDetector, loader: DataLoader) -> None:
    """Compare the feature maps of a loader's first sample with what reads them."""
    if len(loader.dataset) == 0:
        return
    with unnoticed():
        batch = loader.collate_fn([loader.dataset[0]])
        inputs = model.data_preprocessor(batch)['inputs']
        feats = trace_shapes(model, inputs).feats
        model.check_feats(feats, tuple(inputs.shape[-2:]))


class _RemoveLater:
    """A file backend whose removals wait until they are asked for."""

    def __init__(self, backend) -> None:
        self._backend = backend
        self._removals = {}

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._removals[path] = self._backend.remove

    def rmtree(self, path: str) -> None:
        self._removals[path] = self._backend.rmtree

    def remove_now(self, *, keep: Sequence[str | None]) -> None:
        for path, remove in self._removals.items():
            if path not in keep:
                remove(path)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` with the same options, that loses nothing.

    A checkpoint is written under another name and renamed when it is whole, and
    older ones are removed only then (mmengine removes first and writes in place). So
    a kill or a full disk leaves the earlier checkpoints, ``last_checkpoint`` and
    ``best_*`` as they were. It needs room for one checkpoint more than are kept.

    Raises:
        RuntimeError: if a checkpoint cannot be written, with the remedy.
        TypeError: for an option that mmengine's hook does not know.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.args:  # mmengine would hand them on and fail at the first checkpoint
            raise UserError(
                f'{type(self).__name__}.__init__() got an unexpected keyword argument '
                f'{next(iter(self.args))!r}'
            )

    def before_train(self, runner) -> None:
        folder = self.out_dir or runner.work_dir
        is_local = isinstance(get_file_backend(folder), LocalBackend)
        if is_local and self.backend_args is None and self.file_client_args is None:
            self.backend_args = dict(backend=ATOMIC_BACKEND)
        super().before_train(runner)
        if is_local and is_main_process():
            self._remove_parts(runner)

    def _remove_parts(self, runner) -> None:
        """Remove what a killed run was writing."""
        checkpoints = f'*{Path(self.filename_tmpl).suffix}'
        for folder, name in (
            (self.out_dir, checkpoints),
            (runner.work_dir, 'last_checkpoint'),
        ):
            for part in Path(folder).glob(part_path(name).name):
                part.unlink(missing_ok=True)

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        outdated = self._remember_step(runner, step)
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        with self._stop_when_unwritable(self.last_ckpt):
            runner.save_checkpoint(
                self.out_dir,
                filename,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
            )
            if not is_main_process():
                return
            write_atomically(
                osp.join(runner.work_dir, 'last_checkpoint'), self.last_ckpt.encode()
            )
        for path in outdated:
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)

    def _remember_step(self, runner, step: int) -> list[str]:
        """Note that ``step`` is saved; returns the checkpoints that are one too many.

        What is noted goes into the checkpoint, so it must be noted before saving.
        """
        if self.max_keep_ckpts <= 0:
            return []
        kept = [old for old in self.keep_ckpt_ids if old != step] + [step]
        outdated = kept[: -self.max_keep_ckpts]
        self.keep_ckpt_ids.clear()
        self.keep_ckpt_ids.extend(kept[-self.max_keep_ckpts :])
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        return [
            self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
            for old in outdated
        ]

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        backend = self.file_backend
        self.file_backend = removals = _RemoveLater(backend)
        try:
            with self._stop_when_unwritable(osp.join(self.out_dir, 'best_*')):
                super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        best = list(getattr(self, 'best_ckpt_path_dict', {}).values())
        removals.remove_now(
            keep=[*best, getattr(self, 'best_ckpt_path', None), self.last_ckpt]
        )

    @contextmanager
    def _stop_when_unwritable(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f'Checkpoint {path} cannot be written ({error.strerror or error}); '
                f'the earlier ones are whole: make room and go on with --resume.'
            ) from error
