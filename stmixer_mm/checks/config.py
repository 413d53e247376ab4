"""What can be found wrong in a config before anything is built.

Whatever works must pass: what this cannot judge is left to the build, whose failure is
one sentence too (:func:`building`).
"""

import inspect
import re
import reprlib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
from mmengine import registry as root
from mmengine.config import Config
from mmengine.registry import Registry, init_default_scope
from torch.utils.data import DataLoader

from stmixer_mm.engine.checkpoints import check_checkpoint_file
from stmixer_mm.errors import TRACEBACK_SWITCH, UserError, blame, nearest
from stmixer_mm.files import check_file, check_writable_dir

# Where the classes of a config's sections are looked up first.
_REGISTRIES = {
    'model': (root.MODELS, root.TASK_UTILS),
    'optim_wrapper': (root.OPTIM_WRAPPERS, root.OPTIMIZERS),
    'param_scheduler': (root.PARAM_SCHEDULERS,),
    'default_hooks': (root.HOOKS,),
    'custom_hooks': (root.HOOKS,),
    'visualizer': (root.VISUALIZERS, root.VISBACKENDS),
}
for _split in ('train', 'val', 'test'):
    _REGISTRIES |= {
        f'{_split}_dataloader': (root.DATASETS, root.TRANSFORMS, root.DATA_SAMPLERS),
        f'{_split}_evaluator': (root.METRICS, root.EVALUATOR),
        f'{_split}_cfg': (root.LOOPS,),
    }
_ALL_REGISTRIES = [one for one in vars(root).values() if isinstance(one, Registry)]

# What mmengine's runner takes together or not at all.
_TOGETHER = {
    'train': ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    'val': ('val_dataloader', 'val_cfg', 'val_evaluator'),
    'test': ('test_dataloader', 'test_cfg', 'test_evaluator'),
}

# What mmengine takes out of the dict of a part before it builds the part.
_FOR_THE_BUILDER = {
    'type',
    '_scope_',
    'constructor',  # of an optimiser wrapper
    'convert_to_iter_based',  # of a parameter scheduler
    'num_batch_per_epoch',  # of a data loader
    'paramwise_cfg',
    'priority',  # of a hook
}


def load_config(path: str | Path, overrides: dict | None = None) -> Config:
    """Read a config file and merge ``overrides`` (dotted key → value) into it.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    check_file(path, subject=f'Config {path}', remedy='give the path of a .py file')
    with blame(f'Config {path} cannot be read', 'mend it there or in its _base_ files'):
        cfg = Config.fromfile(str(path))
    merge_overrides(cfg, overrides)
    return cfg


def merge_overrides(cfg: Config, overrides: dict | None) -> None:
    """Merge the settings of ``--cfg-options`` into a config.

    Raises:
        UserError: naming the settings, if they do not fit the config.
    """
    settings = ' '.join(overrides or ())
    with blame(f'--cfg-options {settings} do not fit the config', 'correct them'):
        cfg.merge_from_dict(overrides or {})


def building(cfg: Config) -> AbstractContextManager[None]:
    """The context in which a config, or a part of it, is built: it has the blame."""
    return blame(
        f'Config {cfg.filename or ""}'.strip() + ' cannot be built',
        f'correct it, or set {TRACEBACK_SWITCH}=1 to see where it fails',
    )


def check_arguments(cfg: Config) -> None:
    """Compare a config with the signatures of the classes that it names.

    Names of types and of arguments are checked in the parts that mmengine and this
    package build (others may change what they are given first), values where this
    package declares what they are.

    Raises:
        UserError: naming the part, and the nearest valid name or the value.
    """
    init_default_scope(cfg.get('default_scope') or 'mmaction')
    for section, registries in _REGISTRIES.items():
        _check_section(cfg.get(section), section)
        for place, part, values in _parts(cfg.get(section), section, registries):
            check_part(part, values, place=place)
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader') or {}
        _check_section(loader.get('dataset'), f'{split}_dataloader.dataset')
        check_part(DataLoader, loader, place=f'{split}_dataloader')


def _check_section(section: object, name: str) -> None:
    for part in section if isinstance(section, list | tuple) else [section]:
        if isinstance(part, str | int | float):
            raise UserError(
                f'{name} of the config has {part!r} where a dict is needed; write '
                'one as the configs in configs/ do.'
            )


def _parts(
    node: object, place: str, registries: Sequence[Registry]
) -> Iterator[tuple[str, type, Mapping]]:
    """The parts that mmengine or this package build, with place, class and values."""
    if isinstance(node, Mapping):
        if 'type' in node:
            name = node['type']
            if '_scope_' in node and isinstance(name, str):
                name = f'{node["_scope_"]}.{name}'
            part = _find_class(name, registries, place)
            if part is None:
                return
            yield place, part, node
            if _package(part) not in ('mmengine', 'stmixer_mm'):
                return
        for key, value in node.items():
            # norm_cfg, init_cfg, … are completed by who uses them.
            if not str(key).endswith('_cfg'):
                yield from _parts(value, f'{place}.{key}', registries)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _parts(value, f'{place}[{index}]', registries)


def _package(part: type) -> str:
    return part.__module__.partition('.')[0]


def _find_class(
    name: object, registries: Sequence[Registry], place: str
) -> type | None:
    """The class of a part; None for what is no class, or of another registry.

    Raises:
        UserError: no registry of the hosts knows the name.
    """
    if not isinstance(name, str):
        return name if inspect.isclass(name) else None
    known = []
    for registry in (*registries, *_ALL_REGISTRIES):
        with registry.switch_scope_and_registry(None) as scoped:
            part = _get(scoped, name) or _get(registry, name)
        if part is not None:
            return part if registry in registries and inspect.isclass(part) else None
        if registry in registries:
            known += [*scoped.module_dict, *registry.module_dict]
    remedy = nearest(name, known) or '; name its module in custom_imports.'
    raise UserError(f'{place}.type={name!r} of the config is unknown{remedy}')


def _get(registry: Registry, name: str) -> Callable | None:
    try:
        return registry.get(name)
    except (RuntimeError, ImportError):  # how mmengine says no to some names
        return None


def check_part(part: type, values: Mapping[str, object], *, place: str = '') -> None:
    """Compare arguments with what a class takes, and values with what it declares.

    Args:
        part: The class.
        values: Its arguments.
        place: Where they stand in the config, for the message.

    Raises:
        UserError: for the first one that it does not take.
    """
    where = f'{part.__name__} ({place})' if place else part.__name__
    valid = _parameters(part)
    for argument, value in values.items():
        if argument in valid:
            wanted = valid[argument]
            if not fits(value, wanted):
                form = re.sub(r'\b(\w+\.)+', '', inspect.formatannotation(wanted))
                raise UserError(
                    f'{where} takes {argument} as {form}, not {reprlib.repr(value)}; '
                    'correct it.'
                )
        elif argument not in _FOR_THE_BUILDER and '**' not in valid:
            remedy = nearest(argument, valid) or f'; it takes {", ".join(valid)}'
            if place.startswith('model.'):
                # A child config that names another type inherits the old arguments.
                remedy = f' (to replace a part, give it _delete_=True){remedy}'
            raise UserError(f'{where} has no argument {argument!r}{remedy}')


def _parameters(part: type) -> dict[str, object]:
    """Arguments of a class with the types that this package declares for them.

    Those of its base classes are among them if it hands ``**kwargs`` on, '**' if it
    may take anything.
    """
    found: dict[str, object] = {}
    for base in inspect.getmro(part):
        if '__init__' not in vars(base) or base is object:
            continue
        is_ours = _package(base) == 'stmixer_mm'
        takes_more = False
        for parameter in [*inspect.signature(base.__init__).parameters.values()][1:]:
            if parameter.kind is parameter.VAR_KEYWORD:
                takes_more = True
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                declared = parameter.annotation if is_ours else typing.Any
                found.setdefault(parameter.name, declared)
        if not takes_more:
            break
        if not is_ours:
            found['**'] = typing.Any
    return found


_PLAIN = {
    bool: Integral | np.bool_,
    int: Integral,
    float: Real,
    str: str | PathLike,
    types.NoneType: types.NoneType,
}


def fits(value: object, hint: object) -> bool:
    """Whether a value is of a type, or may become it (a dict of a part, an object).

    Lists are as good as tuples, whole numbers as others; a bool is not a number.
    """
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if kind is typing.Literal:
        return value in inner
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind in _PLAIN:
        return isinstance(value, _PLAIN[kind])
    if kind in (list, tuple, Sequence):
        if isinstance(value, str | Mapping) or not hasattr(value, '__len__'):
            return False
        return not inner or all(fits(one, inner[0]) for one in value)
    is_plain = isinstance(value, str | Real | types.NoneType)
    takes_anything = kind in (typing.Any, inspect.Parameter.empty)
    return takes_anything or not is_plain or not inspect.isclass(kind)


def _check_sections(cfg: Config, mode: str) -> None:
    for name, sections in _TOGETHER.items():
        lacking = [section for section in sections if cfg.get(section) is None]
        if name != mode and len(lacking) == len(sections):
            continue
        if cfg.get('model') is None:
            lacking.insert(0, 'model')
        if lacking:
            raise UserError(
                f'The config has no {", ".join(lacking)}, which the {name} loop needs; '
                'write it, or take it over by _base_ from one in configs/.'
            )


def check_run(cfg: Config, mode: Literal['train', 'test']) -> None:
    """Everything that can stop a training or test run before it does any work.

    Raises:
        UserError: one sentence that names what is wrong.
    """
    _check_sections(cfg, mode)
    check_arguments(cfg)
    check_writable_dir(cfg.work_dir, purpose='work dir')
    checkpoint = cfg.get('load_from')
    last = Path(cfg.work_dir, 'last_checkpoint')
    if checkpoint is None and cfg.get('resume') and last.is_file():
        checkpoint = last.read_text().strip()
    if checkpoint is not None:
        check_checkpoint_file(checkpoint)
