"""Hooks: safe checkpoints, refusal of what does not fit, lean convolutions."""

import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmcv.ops import get_compiler_version
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from stmixer_mm.compat import find_latest_checkpoint
from stmixer_mm.engine.checkpoints import check_state, check_training, state_dict_of
from stmixer_mm.engine.speed import make_convolutions_lean
from stmixer_mm.errors import UserError, nearest
from stmixer_mm.files import ATOMIC_BACKEND, lock_folder, sha256_of
from stmixer_mm.models.detectors.base import ClipDetector
from stmixer_mm.models.shapes import trace_shapes, without_side_effects
from stmixer_mm.registry import HOOKS


@HOOKS.register_module()
class LeanConvolutionsHook(Hook):
    """Train in less time and RAM: see :func:`.make_convolutions_lean`."""

    def before_train(self, runner) -> None:
        make_convolutions_lean(runner.model)


@HOOKS.register_module()
class CheckCheckpointHook(Hook):
    """Stop before a checkpoint of another architecture is loaded.

    mmengine loads what fits and only warns of the rest. Checkpoints of a run that
    started from another's weights have its path and SHA-256 in
    ``meta['started_from']``, also after the run was resumed.

    Args:
        allow: Regular expressions; parameters whose name contains a match may be
            missing, left over or of another shape (for fine-tuning with another number
            of classes, say).
    """

    # Before EMAHook, which changes what it finds in the checkpoint.
    priority = 'VERY_HIGH'

    def __init__(self, *, allow: Sequence[str] = ()) -> None:
        self.allow = (allow,) if isinstance(allow, str) else tuple(allow)
        self._started_from: dict[str, str] | None = None

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        source = source_of(runner)
        state = state_dict_of(checkpoint, source=source)
        check_state(runner.model, state, source=source, allow=self.allow)
        checkpoint.setdefault('state_dict', state)  # mmengine looks only there
        if not runner._resume:
            self._started_from = dict(checkpoint=str(source))
            if os.path.isfile(source):  # not a URL
                self._started_from['sha256'] = sha256_of(source)
        elif isinstance(runner, Runner):
            check_training(runner, checkpoint, source=source)
            self._started_from = checkpoint['meta'].get('started_from')

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if self._started_from is not None:
            checkpoint['meta']['started_from'] = self._started_from


def source_of(runner) -> str | None:
    """The checkpoint that a run loads or resumes from, if any."""
    source = runner._load_from
    if source is None and runner._resume:
        source = find_latest_checkpoint(runner.work_dir)
    return source


@HOOKS.register_module()
class CheckModelHook(Hook):
    """Stop before a run whose model does not fit its data.

    Compares the model's number of classes with those of the datasets and the metrics,
    and the feature maps that it expects with those of a sample of each dataset. Names
    the trainable parameters that the first step leaves without a gradient.

    Raises:
        UserError: names the two numbers that differ, and where to set the model's; a
            key of ``custom_keys`` that no parameter has; or the parameters, if
            distributed training would break off at the next step.
    """

    # Before weights are loaded.
    priority = 'VERY_HIGH'

    def before_run(self, runner) -> None:
        runner.logger.info(f"compiler of mmcv's operators: {get_compiler_version()}")
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if isinstance(runner._train_loop, BaseLoop):
            check_custom_keys(model, runner.cfg.get('optim_wrapper') or {})
        if not isinstance(model, ClipDetector):
            return
        for split in ('train', 'val', 'test'):
            loop = getattr(runner, f'_{split}_loop')
            if isinstance(loop, BaseLoop):
                check_classes(model, loop)
                check_sample(model, loop.dataloader)

    def before_train(self, runner) -> None:
        self.has_stepped = False
        # To the parameters of other wrappers no gradient comes.
        is_sharded = is_model_wrapper(runner.model) and not isinstance(
            runner.model, DistributedDataParallel
        )
        if isinstance(runner.optim_wrapper, OptimWrapper) and not is_sharded:
            optimizer = runner.optim_wrapper.optimizer
            optimizer.register_step_pre_hook(lambda *_: self._before_step(runner))

    def _before_step(self, runner) -> None:
        if not self.has_stepped:
            self.has_stepped = True
            tell_idle(runner)


def tell_idle(runner) -> None:
    """Log parameters without a gradient, or refuse them where they need a setting."""
    names = [
        name.removeprefix('module.')
        for name, value in runner.model.named_parameters()
        if value.requires_grad and value.grad is None
    ]
    if not names:
        return
    message = (
        f'{len(names)} trainable parameters got no gradient in the first step and stay '
        f'as they are: {textwrap.shorten(", ".join(names), 300, placeholder=" …")}'
    )
    model = runner.model
    if getattr(model, 'find_unused_parameters', True) or model.static_graph:
        runner.logger.warning(message)
    else:
        raise UserError(
            f'{message}; distributed training needs find_unused_parameters=True in the '
            'config, or a model without them.'
        )


def check_custom_keys(model: nn.Module, optim_wrapper: Mapping) -> None:
    """Refuse settings for parameters that the model does not have."""
    names = [name for name, _ in model.named_parameters()]
    paramwise_cfg = optim_wrapper.get('paramwise_cfg') or {}
    for key in paramwise_cfg.get('custom_keys') or ():
        if not any(key in name for name in names):
            parts = {part for name in names for part in name.split('.')}
            remedy = nearest(key, parts) or '; take it out.'
            raise UserError(
                f'optim_wrapper.paramwise_cfg.custom_keys has {key!r}, which is in no '
                f"name of the model's parameters{remedy}"
            )


def check_classes(model: ClipDetector, loop: BaseLoop) -> None:
    """Compare the numbers of classes of a model, and of a loop's dataset and metrics."""
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
    with without_side_effects():
        batch = loader.collate_fn([loader.dataset[0]])
        inputs = model.data_preprocessor(batch)['inputs']
        if inputs is None:  # what is learnt needs no clips
            return
        feats = trace_shapes(model, inputs).feats
        model.check_feats(feats, tuple(inputs.shape[-2:]))


class _RemoveLater(LocalBackend):
    """Local files; what is to be removed is only noted."""

    def __init__(self) -> None:
        self.outdated = []

    def remove(self, filepath: str) -> None:
        self.outdated.append(filepath)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` that never loses a checkpoint.

    A checkpoint is written under another name and renamed when it is complete; older
    ones are removed only then (mmengine removes first and writes in place). A kill or
    a full disk thus leaves the earlier checkpoints, ``last_checkpoint`` and ``best_*``
    as they were. It needs room for one checkpoint more than are kept. A run never
    replaces or removes checkpoints of another one.

    Args:
        settings: Those of ``CheckpointHook``, except for places outside the work dir.

    Raises:
        UserError: a checkpoint cannot be written, the folder has those of another run,
            another process trains in it, or an option is unknown.
    """

    def __init__(self, **settings) -> None:
        places = dict(out_dir=None, backend_args=dict(backend=ATOMIC_BACKEND))
        super().__init__(**places, **settings)
        if self.args:  # mmengine would fail at the first checkpoint
            raise UserError(
                f'SafeCheckpointHook has no argument {", ".join(self.args)}; it takes '
                "those of mmengine's CheckpointHook."
            )

    def before_run(self, runner) -> None:
        # Before the last checkpoint is read, which the other run may remove.
        if is_main_process() and isinstance(runner._train_loop, BaseLoop):
            lock_folder(runner.work_dir, purpose='training')

    def before_train(self, runner) -> None:
        if is_main_process():
            self._check_folder(runner)
        # Never remove those of the place that a run was copied or moved from.
        for key, path in [*runner.message_hub.runtime_info.items()]:
            if key.startswith('best_ckpt') and path:
                local_path = str(Path(runner.work_dir, Path(path).name))
                runner.message_hub.update_info(key, local_path)
        super().before_train(runner)
        self.file_backend = _RemoveLater()

    def _check_folder(self, runner) -> None:
        """Refuse a folder with checkpoints, unless the run goes on with one of them."""
        folder = Path(runner.work_dir)
        patterns = re.sub(r'\{.*?\}', '*', self.filename_tmpl), 'best_*'
        names = sorted(
            file.name for pattern in patterns for file in folder.glob(pattern)
        )
        source = source_of(runner) if runner._resume else None
        goes_on = source and Path(source).parent.resolve() == folder.resolve()
        if names and not goes_on:
            raise UserError(
                f'{folder} already contains checkpoints ({", ".join(names[:3])}); pass '
                '--resume to continue that run, or choose another --work-dir.'
            )

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        with self._losing_nothing(self.filename_tmpl.format(step)):
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        with self._losing_nothing('best_*'):
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _losing_nothing(self, name: str) -> Iterator[None]:
        """Remove outdated checkpoints only after the new one is there."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f'Checkpoint {name} cannot be written to {self.out_dir} '
                f'({error.strerror or error}); make room and continue with --resume.'
            ) from error
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        keep = [*best, getattr(self, 'best_ckpt_path', None), self.last_ckpt]
        for path in {*self.file_backend.outdated}.difference(keep):
            Path(path).unlink(missing_ok=True)
        self.file_backend.outdated.clear()
