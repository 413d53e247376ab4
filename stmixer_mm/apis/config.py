"""Config files: reading them, and unknown names in them.

What else is wrong with a config is found where it is built; that error becomes one
sentence, too (:func:`building`).
"""

import inspect
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args, get_origin

import torch
from mmengine import registry as root
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.fileio import load
from mmengine.registry import DefaultScope, Registry, init_default_scope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from stmixer_mm.errors import UserError, blame, nearest
from stmixer_mm.files import check_file, check_writable_dir, package_folder
from stmixer_mm.registry import import_moved, is_timm

SPLITS = ('train', 'val', 'test')
_STARRED = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
_REGISTRIES = [value for value in vars(root).values() if isinstance(value, Registry)]

# What mmengine takes out of the dict of a part before it builds the part: of optimiser
# wrappers, parameter schedulers, data loaders and hooks.
_FOR_THE_BUILDER = {
    *('type', '_scope_', 'constructor', 'paramwise_cfg', 'convert_to_iter_based'),
    *('num_batch_per_epoch', 'priority'),
}


# Top-level keys that are read by mmengine or this package.
_TOP_LEVEL = {
    *inspect.signature(Runner).parameters,
    *(
        'activation_checkpointing',
        'compile',
        'custom_imports',
        'efficient_conv_bn_eval',
    ),
    *('find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'strategy'),
    *('sync_bn', 'tta_model', 'use'),
}
# Helper variables in the configs of mmaction2 and mmdet are less similar to them.
_MISSPELT = 0.82
# Keys that mmcv 1 read, with those that say it now.
_OF_MMCV_1 = {
    **dict.fromkeys(('optimizer', 'optimizer_config'), 'optim_wrapper'),
    **dict.fromkeys(('lr_config', 'momentum_config'), 'param_scheduler'),
    **dict.fromkeys(('checkpoint_config', 'log_config'), 'default_hooks'),
    **dict.fromkeys(('total_epochs', 'runner', 'workflow'), 'train_cfg'),
    'data': 'train_dataloader',
    'evaluation': 'val_evaluator',
    'resume_from': 'load_from',
}


def load_config(path: str | Path, overrides: dict | None = None) -> Config:
    """Read a config file.

    Args:
        path: Its path, or a name of :func:`list_configs`.
        overrides: Dotted key → value, merged into it.
    """
    path = _find_config(str(path))
    check_file(path, subject=f'Config {path}', remedy='give the path of a .py file')
    with blame(f'Config {path} cannot be read', 'mend it there or in its _base_ files'):
        try:
            cfg = Config.fromfile(str(path))
        except ImportError as error:
            cause: BaseException = error  # mmengine's words are on sys.path
            while cause.__context__:
                cause = cause.__context__
            raise UserError(
                f'Config {path} cannot import what it needs ({cause}); install that, put '
                'its folder on PYTHONPATH, or correct custom_imports.'
            ) from error
    merge_overrides(cfg, overrides)
    return cfg


def config_files(cfg: Config) -> list[str]:
    """The files that a config names, which no output may replace; and its own."""
    return [*_named_files([cfg.filename, dict(cfg.items())], '')]


def _named_files(node: object, root: str) -> Iterator[str]:
    """Files among the strings of a node, also below the ``data_root`` beside them."""
    if isinstance(node, Mapping):
        root = str(node.get('data_root') or root)
        node = [*node.values()]
    if isinstance(node, list | tuple):
        for value in node:
            yield from _named_files(value, root)
    elif isinstance(node, str):
        yield from filter(os.path.isfile, (node, os.path.join(root, node)))


def list_configs() -> dict[str, Path]:
    """Configs of this package, by file names and by names of models with weights."""
    configs = package_folder().glob('configs/*/*.py')
    return {
        **{path.stem: path for path in configs if path.parts[-2] != '_base_'},
        **{name: package_folder() / model['Config'] for name, model in read_metafile()},
    }


def read_metafile() -> list[tuple[str, dict]]:
    """Short names of models with weights, and what ``mim`` is told of each."""
    files = sorted(package_folder().glob('configs/*/metafile.yml'))
    models = [model for file in files for model in load(file)['Models']]
    return [(name, model) for model in models for name in model.get('Alias', ())]


def _find_config(path: str) -> str | Path:
    name = path.removesuffix('.py')
    if os.path.exists(path) or os.path.basename(name) != name:
        return path
    configs = list_configs()
    if name not in configs:
        remedy = nearest(name, configs) or '; give the path of a file.'
        raise UserError(
            f'{path} is neither a file nor the name of a config or model{remedy}'
        )
    return configs[name]


def merge_overrides(cfg: Config, overrides: dict | None) -> None:
    """Merge the settings of ``--cfg-options`` into a config."""
    settings = ' '.join(overrides or ())
    remedy = 'correct them (the entries of a list have numbers: a_list.0.a_setting=1)'
    with blame(f'--cfg-options {settings} do not fit the config', remedy):
        cfg.merge_from_dict(overrides or {})


def building(cfg: Config, part: str = 'runner') -> AbstractContextManager[None]:
    """The context in which a config, or a part of it, is built: it has the blame."""
    return blame(f'The {part} of config {cfg.filename or ""} cannot be built')


def check_run(cfg: Config, mode: Literal['train', 'test']) -> None:
    """Find what can stop a training or test run before it does any work."""
    last = 'optim_wrapper' if mode == 'train' else 'test_evaluator'
    for section in ('model', f'{mode}_dataloader', f'{mode}_cfg', last):
        if cfg.get(section) is None:
            raise UserError(
                f'Config {cfg.filename} has no {section}, which the {mode} loop needs; '
                'write it, or inherit it by _base_ from a config in configs/.'
            )
    check_arguments(cfg)
    check_writable_dir(cfg.work_dir, purpose='work dir')


def check_arguments(cfg: Config) -> None:
    """Find classes and arguments that do not exist, before anything is built.

    ``UserError`` names the part and the nearest valid name. Only parts that mmengine
    and this package build are checked: others may change what they are given first.
    """
    with building(cfg, 'default_scope'):
        init_default_scope(cfg.get('default_scope') or 'mmaction')
    _check_keys(cfg)
    for section in inspect.signature(Runner).parameters:
        node = cfg.get(section)
        _check_node(node, section)
        if not section.endswith('dataloader'):
            continue
        if not isinstance(node, Mapping | DataLoader | None):
            raise UserError(
                f'{section}={node!r} of config {cfg.filename or ""} is not a dict; give '
                'it one with dataset, sampler and batch_size.'
            )
        if isinstance(node, Mapping):
            check_part(DataLoader, node, section)


def _check_keys(cfg: Config) -> None:
    """Refuse misspelt and old keys, which nothing reads; other ones are variables."""
    sections = [cfg[key] for key in cfg if key in _TOP_LEVEL]
    read_values = [node for _, node in _nodes(sections, '')]
    for key, value in cfg.items():
        # 'val_evaluator_small' and 'dataloader' are of those that make up another.
        is_derived = any(f'_{name}_' in f'_{key}_' for name in _TOP_LEVEL) or any(
            f'_{key}_' in f'_{name}_' for name in _TOP_LEVEL
        )
        swapped = [name for name in _TOP_LEVEL if sorted(name) == sorted(key)]
        if key in _OF_MMCV_1 and value not in read_values:
            remedy = f'; write {_OF_MMCV_1[key]}, which mmengine reads'
        elif is_derived:
            continue
        elif swapped:
            remedy = f'; did you mean {swapped[0]}?'
        else:
            remedy = nearest(key.lower(), _TOP_LEVEL, _MISSPELT)
        if remedy:
            raise UserError(
                f'The key {key!r} of config {cfg.filename or ""} is read by nothing'
                f'{remedy} (a variable of your own needs another name)'
            )


def _nodes(node: object, place: str) -> Iterator[tuple[str, object]]:
    """A node of a config and all nodes inside it, with their places."""
    yield place, node
    children = {}
    if isinstance(node, Mapping):
        children = {f'{place}.{key}': child for key, child in node.items()}
    elif isinstance(node, list | tuple):
        children = {f'{place}[{index}]': child for index, child in enumerate(node)}
    for child_place, child in children.items():
        yield from _nodes(child, child_place)


def _check_node(node: object, place: str) -> None:
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
        if isinstance(node.get('ema_type'), str):  # built with the model, unscoped
            _find_class(node['ema_type'], None, place, key='ema_type')
        for key, value in node.items():
            # norm_cfg, init_cfg, … are completed by who uses them.
            if not str(key).endswith('_cfg'):
                _check_node(value, f'{place}.{key}')


def _package(part: type) -> str:
    return part.__module__.partition('.')[0]


def _find_class(
    name: object, scope: str | None, place: str, key: str = 'type'
) -> type | None:
    """The class of a part; None for what is not a class, such as a function."""
    if not isinstance(name, str) or is_timm(name):
        return name if inspect.isclass(name) else None
    import_moved(name)
    prefix, _, plain = name.rpartition('.')
    scope = scope or prefix or DefaultScope.get_current_instance().scope_name
    names = []
    for registry in _REGISTRIES:
        for scoped in (registry.children.get(scope, registry), registry):
            names += scoped.module_dict
            with suppress(RuntimeError, ImportError):  # mmengine's, for some names
                part = scoped.get(name)
                if part is not None:
                    return part if inspect.isclass(part) else None
    remedy = _find_elsewhere(name) or nearest(plain, {*names, *_list_project_parts()})
    remedy = remedy or '; name its module in custom_imports.'
    raise UserError(f'{place}.{key}={name!r} of the config is unknown{remedy}')


def _find_elsewhere(name: str) -> str:
    """The way to a type that another scope, a project or a package has, or ''."""
    for registry in _REGISTRIES:
        for child in registry.children.values():
            if name in child.module_dict:
                return f"; write '{child.scope}.{name}'."
    if project := _list_project_parts().get(name.removeprefix('stmixer_mm.')):
        return f"; name '{project}' in custom_imports."
    package = name.partition('.')[0]
    if '.' not in name or package not in MODULE2PACKAGE or is_scope(package):
        return ''
    if find_spec(package):
        return f"; name '{package}' in custom_imports."
    return f' without {package}; pip install {MODULE2PACKAGE[package]}.'


def _list_project_parts() -> dict[str, str]:
    """Types that the projects of this package register, with the module to import."""
    folder = Path(__file__).parents[1] / 'projects'
    return {
        name: f'stmixer_mm.projects.{file.parent.name}'
        for file in folder.glob('*/*.py')
        for name in re.findall(
            r'^@[A-Z_]+\.register_module\(.*?\)\nclass (\w+)',
            file.read_text('utf-8'),
            re.M,
        )
    }


def check_registered(node: object, place: str) -> None:
    """Refuse types that are not registered: mmengine would import any path, and call it.

    Raises:
        UserError: names the type and its place.
    """
    for node_place, child in _nodes(node, place):
        for key, is_valid in (('type', is_registered), ('_scope_', is_scope)):
            if isinstance(child, Mapping) and key in child and not is_valid(child[key]):
                raise UserError(
                    f'{node_place}.{key}={child[key]!r} is not registered, and a config '
                    'in a file of weights may name nothing else; give the config '
                    'itself, too, if you trust it.'
                )


def is_scope(name: object) -> bool:
    return any(name in registry.children for registry in _REGISTRIES)


def is_registered(name: object) -> bool:
    """True for a type registered by this package or a host, or a backbone of timm."""
    if not isinstance(name, str):
        return False
    if is_timm(name):
        return ':' not in name  # which would fetch from elsewhere
    import_moved(name)
    scope, dot, plain = name.rpartition('.')
    for root_registry in _REGISTRIES:
        for child in (root_registry, *root_registry.children.values()):
            if dot and child.scope != scope:
                continue
            with suppress(ImportError):  # mmaction names places that it lacks
                child.import_from_location()
            if plain in child.module_dict:
                return True
    return False


def check_part(part: type, values: Mapping[str, object], place: str = 'model') -> None:
    """Raise ``UserError`` for the first argument or word that a class does not take."""
    valid = _list_arguments(part)
    if valid is None:
        return
    owner, takes_parts = f'{part.__name__} ({place})', None in valid.values()
    for argument, value in values.items():
        hint = valid.get(argument)
        if get_origin(hint) is Literal and value not in get_args(hint):
            words = ', '.join(map(repr, get_args(hint)))
            raise UserError(f'{owner} has {argument}={value!r}; use one of {words}.')
        if argument in valid or argument in _FOR_THE_BUILDER:
            continue
        if takes_parts and isinstance(value, Mapping | None):
            continue
        remedy = nearest(argument, valid) or f'; it takes {", ".join(valid)}'
        if place.startswith('model.'):
            # A child config that names another type inherits the old arguments.
            remedy = f' (to replace a part, give it _delete_=True){remedy}'
        raise UserError(f'{owner} has no argument {argument!r}{remedy}')


def _list_arguments(part: type) -> dict[str, object] | None:
    """Arguments of a class with their types; None if a host's class takes any.

    Those of its base classes are among them if it hands ``**kwargs`` on, which have an
    annotation, here None, if they are parts that the config names.
    """
    arguments: dict[str, object] = {}
    for base in inspect.getmro(part)[:-1]:
        if '__init__' not in vars(base):
            continue
        _, *parameters = inspect.signature(base.__init__).parameters.values()
        keywords = [
            parameter
            for parameter in parameters
            if parameter.kind is parameter.VAR_KEYWORD
        ]
        annotations = {
            parameter.name: parameter.annotation
            for parameter in parameters
            if parameter.kind not in _STARRED
        }
        arguments = annotations | arguments
        if not keywords:
            return arguments
        if _package(base) != 'stmixer_mm':
            return None
        if keywords[0].annotation is not keywords[0].empty:
            arguments[f'**{keywords[0].name}'] = None
    return arguments


def check_device(device: str) -> None:
    """Raise ``UserError`` when a device cannot compute."""
    remedy = 'give --device cpu or one that this machine has'
    with blame(f'The device {device!r} cannot be used', remedy):
        torch.zeros(1, device=device).item()  # on meta there are no values
