"""Try a training for one step: what no rule knows shows there, in seconds."""

import copy
import textwrap
import traceback
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from io import StringIO
from itertools import islice
from tempfile import TemporaryDirectory

from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from stmixer_mm.apis.running import build_runner
from stmixer_mm.errors import UserError, blame


def dry_run(cfg: Config) -> None:
    """Build all of a config, train one step, save a checkpoint, validate two samples.

    Nothing outside of a temporary folder is written.

    Raises:
        UserError: something fails; names the part of the config.
    """
    cfg = copy.deepcopy(cfg)
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        cfg.update(work_dir=folder, launcher='none', resume=False)
        cfg.pop('compile', None)  # it takes minutes
        if cfg.get('visualizer'):
            cfg.visualizer.vis_backends = []  # some send what they get elsewhere
        for hook in filter(None, (cfg.get('default_hooks') or {}).values()):
            hook.pop('out_dir', None)
        runner = build_runner(cfg)
        try:
            _shorten(runner)
            runner.train()
        except UserError:
            raise
        except Exception as error:
            reason = error
            while reason.__suppress_context__ and reason.__context__:
                reason = reason.__context__  # mmengine replaces those of hooks
            where = _find_part(reason, cfg, runner)
            with blame(f'{where} fails in a dry run', 'correct it in the config'):
                raise reason from None


def _shorten(runner: Runner) -> None:
    """Leave one step of the training, and two samples of the validation."""
    loop = runner.train_loop
    _keep_batches(loop.dataloader, 1)
    loop._max_epochs = loop._max_iters = 1
    if hasattr(loop, 'val_begin'):  # a loop of another package need not have it
        loop.val_begin = min(loop.val_begin, 1)
    if runner._val_loop is not None:
        _keep_batches(runner.val_loop.dataloader, 2, batch_size=1)


def _keep_batches(
    loader: DataLoader, number: int, batch_size: int | None = None
) -> None:
    batches = [[*batch][:batch_size] for batch in islice(loader.batch_sampler, number)]
    vars(loader).update(batch_sampler=batches)  # a loader refuses to be assigned one


def _find_part(error: BaseException, cfg: Config, runner: Runner) -> str:
    """The innermost part of a config that an error passed, with its settings."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        part = frame.f_locals.get('self')
        if isinstance(part, DataLoader):
            split = 'train' if part is runner.train_dataloader else 'val'
            return _describe(f'{split}_dataloader', cfg[f'{split}_dataloader'])
        for place, settings in _list_parts(cfg):
            if str(settings['type']).rpartition('.')[2] == type(part).__name__:
                return _describe(place, settings)
    return f'Config {cfg.filename or ""}'


def _describe(place: str, settings: Mapping) -> str:
    """Settings that are no parts themselves."""
    texts = (
        f'{key}={value!r}'
        for key, value in settings.items()
        if not (isinstance(value, Mapping) and [*_list_parts(value)])
    )
    text = textwrap.shorten(', '.join(texts), 300, placeholder=' …')
    return f'{place}=dict({text})'


def _list_parts(node: object, place: str = '') -> Iterator[tuple[str, Mapping]]:
    """All parts of a config, with their places."""
    if isinstance(node, Mapping | Config):
        if 'type' in node:
            yield place, node
        for key, value in node.items():
            yield from _list_parts(value, f'{place}.{key}'.removeprefix('.'))
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _list_parts(value, f'{place}[{index}]')
