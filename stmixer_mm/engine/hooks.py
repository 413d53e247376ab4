"""Hooks: safe checkpoints, refusal of what does not fit, lean convolutions."""

import glob
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader

from stmixer_mm.compat import find_latest_checkpoint
from stmixer_mm.engine.checkpoints import check_state, state_dict_of
from stmixer_mm.engine.speed import make_convolutions_lean
from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import ATOMIC_BACKEND, write_atomically
from stmixer_mm.models.detectors.base import ClipDetector
from stmixer_mm.models.shapes import trace_shapes, unnoticed
from stmixer_mm.registry import HOOKS


@HOOKS.register_module()
class LeanConvolutionsHook(Hook):
    """Train in less time and RAM: see :func:`.make_convolutions_lean`."""

    def before_train(self, runner) -> None:
        make_convolutions_lean(runner.model)


@HOOKS.register_module()
class CheckCheckpointHook(Hook):
    """Stop before a checkpoint of another architecture is loaded.

    mmengine loads what fits and only warns of the rest.

    Args:
        allow: Regular expressions; parameters whose name contains a match may be
            missing, left over or of another shape (for fine-tuning with another number
            of classes, say).
    """

    # Before EMAHook, which changes what it finds in the checkpoint.
    priority = 'VERY_HIGH'

    def __init__(self, *, allow: Sequence[str] = ()) -> None:
        self.allow = (allow,) if isinstance(allow, str) else tuple(allow)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        source = source_of(runner)
        state = state_dict_of(checkpoint, source=source)
        check_state(runner.model, state, source=source, allow=self.allow)
        checkpoint.setdefault('state_dict', state)  # mmengine looks only there
        if runner._resume:
            check_training_state(runner, checkpoint, source=source)


def source_of(runner) -> str | None:
    """The checkpoint that a run loads or resumes from, if any."""
    source = runner._load_from
    if source is None and runner._resume:
        source = find_latest_checkpoint(runner.work_dir)
    return source


def check_training_state(runner, checkpoint: dict, *, source: str) -> None:
    """Refuse to resume from weights alone, or with the state of another optimizer."""
    needed = ['meta', 'message_hub', 'optimizer']
    if runner.param_schedulers is not None:
        needed.append('param_schedulers')
    missing = [key for key in needed if key not in checkpoint]
    if missing:
        raise UserError(
            f'Checkpoint {source} cannot be resumed: it lacks {", ".join(missing)}; '
            'resume from a checkpoint that training wrote, or start from its weights: '
            f'without --resume, with --cfg-options load_from={source}.'
        )
    optim = runner.optim_wrapper
    remedy = 'resume with the optim_wrapper that it was trained with'
    with blame(f'The optimizer state of checkpoint {source} does not fit', remedy):
        optim.load_state_dict(dict(checkpoint['optimizer']))
        for part in optim.values() if isinstance(optim, OptimWrapperDict) else [optim]:
            # torch takes over the settings of any other optimizer.
            settings = {*part.optimizer.defaults} - {*part.param_groups[0]}
            if settings:
                name = type(part.optimizer).__name__
                raise ValueError(f'{name} finds no {", ".join(sorted(settings))} in it')


@HOOKS.register_module()
class CheckModelHook(Hook):
    """Stop before a run whose model does not fit its data.

    Compares the model's number of classes with those of the datasets and the metrics,
    and the feature maps that it expects with those of a sample of each dataset.

    Raises:
        UserError: names the two numbers that differ, and where to set the model's.
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
    with unnoticed():
        batch = loader.collate_fn([loader.dataset[0]])
        inputs = model.data_preprocessor(batch)['inputs']
        feats = trace_shapes(model, inputs).feats
        model.check_feats(feats, tuple(inputs.shape[-2:]))


class _RemoveLater:
    """A file backend that only notes what to remove."""

    def __init__(self, backend) -> None:
        self._backend = backend
        self.removals = {}

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.removals[path] = self._backend.remove

    def rmtree(self, path: str) -> None:
        self.removals[path] = self._backend.rmtree


def progress(runner) -> tuple[int, int]:
    """Epochs or iterations of a training that are done, and their total."""
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        return runner.epoch, runner.max_epochs
    return runner.iter, runner.max_iters


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, with its options, that never loses a checkpoint.

    A checkpoint is written under another name and renamed when it is complete; older
    ones are removed only then (mmengine removes first and writes in place). A kill or
    a full disk thus leaves the earlier checkpoints, ``last_checkpoint`` and ``best_*``
    as they were. It needs room for one checkpoint more than are kept. A run never
    replaces or removes checkpoints of another one. A validation that was cut off is
    repeated when the run is resumed: the file ``last_validation`` names the last
    checkpoint that was validated.

    Raises:
        UserError: a checkpoint cannot be written, the folder has those of another run,
            or an option is unknown.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.args:  # mmengine would fail at the first checkpoint
            raise UserError(
                f'SafeCheckpointHook has no argument {", ".join(self.args)}; it takes '
                "those of mmengine's CheckpointHook."
            )

    def before_train(self, runner) -> None:
        if is_main_process():
            self._check_folder(runner)
        folder = self.out_dir or runner.work_dir
        is_local = isinstance(get_file_backend(folder), LocalBackend)
        if is_local and self.backend_args is None and self.file_client_args is None:
            self.backend_args = dict(backend=ATOMIC_BACKEND)
        super().before_train(runner)
        # Never remove those of another run, or of the place that a run moved from.
        self.best_ckpt_path = self._in_folder(getattr(self, 'best_ckpt_path', None))
        best = getattr(self, 'best_ckpt_path_dict', {})
        best.update({key: self._in_folder(path) for key, path in best.items()})
        if runner._resume:
            self.last_ckpt = self._in_folder(source_of(runner))
            self._make_up_for_validation(runner)

    def _make_up_for_validation(self, runner) -> None:
        loop = runner.train_loop
        if runner.val_loop is None or not isinstance(
            loop, EpochBasedTrainLoop | IterBasedTrainLoop
        ):
            return
        loop._decide_current_val_interval()
        done, end = progress(runner)
        is_due = done % loop.val_interval == 0 or done == end
        noted = [None]
        with suppress(OSError, UnicodeDecodeError):
            noted = [self._validation_note(runner).read_text()]
        broadcast_object_list(noted)  # all processes are to do the same
        was_done = noted == [Path(self.last_ckpt or '').name]
        if done >= loop.val_begin and is_due and not was_done:
            runner.val_loop.run()

    def after_val_epoch(self, runner, metrics: dict) -> None:
        super().after_val_epoch(runner, metrics)
        step = runner.epoch if self.by_epoch else runner.iter
        name = self.filename_tmpl.format(step)
        if is_main_process() and Path(self.last_ckpt or '').name == name:
            with suppress(OSError):  # without it, the validation is done again
                write_atomically(self._validation_note(runner), name.encode())

    def _validation_note(self, runner) -> Path:
        return Path(runner.work_dir, 'last_validation')

    def _check_folder(self, runner) -> None:
        """Refuse a folder with checkpoints, unless the run goes on with one of them."""
        folder = Path(runner.work_dir)
        if self.out_dir not in (None, runner.work_dir):
            folder = Path(self.out_dir, folder.name)
        name = re.sub(r'\{.*?\}', '*', glob.escape(self.filename_tmpl))
        names = sorted(
            file.name
            for pattern in (name, f'best_*{Path(name).suffix}')
            for file in folder.glob(pattern)
        )
        source = source_of(runner) if runner._resume else None
        goes_on = source and Path(source).parent.resolve() == folder.resolve()
        if names and not goes_on:
            shown = ', '.join(names[:3]) + (', …' if len(names) > 3 else '')
            raise UserError(
                f'{folder} already contains checkpoints ({shown}); pass --resume to '
                'continue that run, or choose another --work-dir.'
            )

    def _in_folder(self, path: str | None) -> str | None:
        """The file of that name in this run's folder, if there is one."""
        here = path and self.file_backend.join_path(self.out_dir, Path(path).name)
        return here if here and self.file_backend.exists(here) else None

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        if is_main_process():
            self._validation_note(runner).unlink(missing_ok=True)
        with self._losing_nothing(self.filename_tmpl.format(step)):
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        with self._losing_nothing('best_*'):
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _losing_nothing(self, name: str) -> Iterator[None]:
        """Remove outdated checkpoints only after the new one is there."""
        backend = self.file_backend
        self.file_backend = later = _RemoveLater(backend)
        try:
            yield
        except OSError as error:
            raise UserError(
                f'Checkpoint {name} cannot be written to {self.out_dir} '
                f'({error.strerror or error}); make room and continue with --resume.'
            ) from error
        finally:
            self.file_backend = backend
        best = list(getattr(self, 'best_ckpt_path_dict', {}).values())
        keep = [*best, getattr(self, 'best_ckpt_path', None), self.last_ckpt]
        for path, remove in later.removals.items():
            if path not in keep:
                remove(path)
