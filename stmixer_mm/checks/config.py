"""What can be found wrong in a config before anything is built.

Whatever works must pass: what this cannot judge is left to the build, whose failure is
one sentence too (:func:`building`).
"""

import inspect
import os
import re
import reprlib
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from mmengine import registry as root
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.registry import DefaultScope, Registry, init_default_scope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from stmixer_mm.compat import find_latest_checkpoint
from stmixer_mm.engine.checkpoints import check_checkpoint_file
from stmixer_mm.errors import UserError, blame, nearest
from stmixer_mm.files import check_file, check_writable_dir

SPLITS = ('train', 'val', 'test')
_REGISTRIES = [one for one in vars(root).values() if isinstance(one, Registry)]

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

# What mmengine divides by, or counts to, unchecked.
_AT_LEAST_ONE = (
    ('train_cfg', 'max_epochs'),
    ('train_cfg', 'max_iters'),
    ('train_cfg', 'val_interval'),
    ('auto_scale_lr', 'base_batch_size'),
)

_PLAIN = {
    bool: Integral | np.bool_,
    int: Integral,
    float: Real,
    str: str | PathLike,
    types.NoneType: types.NoneType,
}


def load_config(path: str | Path, overrides: dict | None = None) -> Config:
    """Read a config file and merge ``overrides`` (dotted key → value) into it.

    Args:
        path: Its path, or the name of one in configs/ of this package, which is
            installed with it.
        overrides: Settings.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    path = _find_config(str(path))
    check_file(path, subject=f'Config {path}', remedy='give the path of a .py file')
    with blame(f'Config {path} cannot be read', 'mend it there or in its _base_ files'):
        cfg = Config.fromfile(str(path))
    merge_overrides(cfg, overrides)
    return cfg


def _find_config(path: str) -> str | Path:
    name = path.removesuffix('.py')
    if os.path.exists(path) or os.path.basename(name) != name:
        return path
    folder = Path(BaseInferencer._get_repo_or_mim_dir('stmixer_mm'), 'configs')
    found = {
        one.stem: one for one in folder.glob('*/*.py') if one.parts[-2] != '_base_'
    }
    if name not in found:
        remedy = nearest(name, found) or '; give the path of a .py file.'
        raise UserError(f'Config {path} does not exist{remedy}')
    return found[name]


def merge_overrides(cfg: Config, overrides: dict | None) -> None:
    """Merge the settings of ``--cfg-options`` into a config.

    Raises:
        UserError: naming the settings, if they do not fit the config.
    """
    settings = ' '.join(overrides or ())
    remedy = 'correct them (the entries of a list have numbers: a_list.0.a_setting=1)'
    with blame(f'--cfg-options {settings} do not fit the config', remedy):
        cfg.merge_from_dict(overrides or {})


def building(cfg: Config, part: str = 'runner') -> AbstractContextManager[None]:
    """The context in which a config, or a part of it, is built: it has the blame."""
    return blame(f'The {part} of config {cfg.filename or ""} cannot be built')


def check_run(cfg: Config, mode: Literal['train', 'test']) -> None:
    """Everything that can stop a training or test run before it does any work.

    Raises:
        UserError: one sentence that names what is wrong.
    """
    for split in SPLITS:
        last = 'optim_wrapper' if split == 'train' else f'{split}_evaluator'
        sections = ('model', f'{split}_dataloader', f'{split}_cfg', last)
        lacking = [section for section in sections if cfg.get(section) is None]
        # mmengine's runner takes the last three together or not at all.
        if lacking and (split == mode or not {*sections[1:]} <= {*lacking}):
            raise UserError(
                f'The config has no {", ".join(lacking)}, which the {split} loop needs; '
                'write it, or take it over by _base_ from one in configs/.'
            )
    check_arguments(cfg)
    for section, name in _AT_LEAST_ONE:
        value = (cfg.get(section) or {}).get(name)
        if value is not None and not (isinstance(value, Real) and value >= 1):
            raise UserError(
                f'The config has {section}.{name}={value!r}; give 1 or more.'
            )
    check_writable_dir(cfg.work_dir, purpose='work dir')
    checkpoint = cfg.get('load_from')
    if checkpoint is None and cfg.get('resume'):
        checkpoint = find_latest_checkpoint(cfg.work_dir)
    if checkpoint is not None:
        check_checkpoint_file(checkpoint)


def check_arguments(cfg: Config) -> None:
    """Compare a config with the signatures of the classes that it names.

    Names of types and of arguments are checked in the parts that mmengine and this
    package build (others may change what they are given first), values where this
    package declares what they are.

    Raises:
        UserError: naming the part, and the nearest valid name or the value.
    """
    for name in ('default_scope', 'work_dir', 'load_from'):
        _check_value(cfg.get(name), str | None, f'The runner takes {name}')
    init_default_scope(cfg.get('default_scope') or 'mmaction')
    for section, parameter in inspect.signature(Runner).parameters.items():
        node = cfg.get(section)
        # Sections may be dicts or lists; of the rest, more works than is declared.
        is_section = any(fits(one, parameter.annotation) for one in ({}, []))
        if node is None or not is_section:
            continue
        _check_value(node, parameter.annotation, f'The runner takes {section}')
        _check_node(node, section)
        if section.endswith('dataloader'):
            dataset = node.get('dataset', {})
            _check_value(dataset, dict, f'DataLoader ({section}) takes dataset')
            check_part(DataLoader, node, section)


def _check_value(value: object, wanted: object, taker: str) -> None:
    if not fits(value, wanted):
        form = re.sub(r'\b(\w+\.)+', '', inspect.formatannotation(wanted))
        raise UserError(f'{taker} as {form}, not {reprlib.repr(value)}; correct it.')


def _check_node(node: object, place: str) -> None:
    """Check the parts that mmengine or this package build, at any depth."""
    if isinstance(node, list | tuple):
        for index, value in enumerate(node):
            _check_node(value, f'{place}[{index}]')
    elif isinstance(node, Mapping):
        if 'type' in node:
            part = _find_class(node['type'], node.get('_scope_'), place)
            if part is None:
                return
            check_part(part, node, place)
            if _package(part) not in ('mmengine', 'stmixer_mm'):
                return
        for key, value in node.items():
            # norm_cfg, init_cfg, … are completed by who uses them.
            if not str(key).endswith('_cfg'):
                _check_node(value, f'{place}.{key}')


def _package(part: type) -> str:
    return part.__module__.partition('.')[0]


def _find_class(name: object, scope: str | None, place: str) -> type | None:
    """The class of a part; None for what is not a class, such as a function.

    Raises:
        UserError: no registry of the hosts knows the name.
    """
    if not isinstance(name, str):
        return name if inspect.isclass(name) else None
    scope = scope or DefaultScope.get_current_instance().scope_name
    known = []
    for registry in _REGISTRIES:
        for scoped in (registry.children.get(scope, registry), registry):
            known += scoped.module_dict
            # How mmengine says no to some names.
            with suppress(RuntimeError, ImportError):
                part = scoped.get(name)
                if part is not None:
                    return part if inspect.isclass(part) else None
    remedy = nearest(name, known) or '; name its module in custom_imports.'
    raise UserError(f'{place}.type={name!r} of the config is unknown{remedy}')


def check_part(part: type, values: Mapping[str, object], place: str = 'model') -> None:
    """Compare arguments with what a class takes, and values with what it declares.

    Raises:
        UserError: for the first one that it does not take.
    """
    where = f'{part.__name__} ({place})'
    valid = _parameters(part)
    for argument, value in values.items():
        if argument in valid:
            _check_value(value, valid[argument], f'{where} takes {argument}')
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
    for base in inspect.getmro(part)[:-1]:
        if '__init__' not in vars(base):
            continue
        is_ours = _package(base) == 'stmixer_mm'
        _, *parameters = inspect.signature(base.__init__).parameters.values()
        for one in parameters:
            if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
                found.setdefault(one.name, one.annotation if is_ours else Any)
        if not parameters or parameters[-1].kind is not one.VAR_KEYWORD:
            break
        if not is_ours:
            found['**'] = Any
    return found


def fits(value: object, hint: object) -> bool:
    """Whether a value is of a type, or may become it (a dict of a part, an object).

    Lists are as good as tuples, whole numbers as others; a bool is not a number.
    """
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if kind in (Any, inspect.Parameter.empty):
        return True
    if kind is Literal:
        return value in inner
    if kind in _PLAIN:
        is_number = kind not in (int, float) or not isinstance(value, bool)
        return is_number and isinstance(value, _PLAIN[kind])
    if kind in (list, tuple, Sequence):
        is_list = isinstance(value, Collection) and not isinstance(value, str | Mapping)
        return is_list and all(fits(one, inner[0]) for one in value if inner)
    return not isinstance(value, str | Real | None) or not inspect.isclass(kind)


def check_device(device: str) -> None:
    """Raise ``UserError`` when a device cannot compute."""
    remedy = 'give --device cpu or one that this machine has'
    with blame(f'The device {device!r} cannot be used', remedy):
        torch.zeros(1, device=device).item()  # on meta there are no values
