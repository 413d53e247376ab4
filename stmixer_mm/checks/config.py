"""What can be found wrong before any work is done."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from mmaction import registry as host
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from stmixer_mm.checks.argument_types import wrong_type_sentence
from stmixer_mm.engine.checkpoints import check_checkpoint_file
from stmixer_mm.errors import UserError, nearest
from stmixer_mm.files import check_file, check_writable_dir

# Where the classes of a config's sections are looked up, in this order.
_SECTION_REGISTRIES = {
    'model': (host.MODELS, host.TASK_UTILS),
    'train_dataloader': (host.DATASETS, host.TRANSFORMS, host.DATA_SAMPLERS),
    'val_dataloader': (host.DATASETS, host.TRANSFORMS, host.DATA_SAMPLERS),
    'test_dataloader': (host.DATASETS, host.TRANSFORMS, host.DATA_SAMPLERS),
    'val_evaluator': (host.METRICS,),
    'test_evaluator': (host.METRICS,),
    'train_cfg': (host.LOOPS,),
    'val_cfg': (host.LOOPS,),
    'test_cfg': (host.LOOPS,),
    'optim_wrapper': (host.OPTIM_WRAPPERS, host.OPTIMIZERS),
    'default_hooks': (host.HOOKS,),
    'custom_hooks': (host.HOOKS,),
    'visualizer': (host.VISUALIZERS, host.VISBACKENDS),
}

# What mmengine's runner takes together or not at all.
_TOGETHER = {
    'train': ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    'val': ('val_dataloader', 'val_cfg', 'val_evaluator'),
    'test': ('test_dataloader', 'test_cfg', 'test_evaluator'),
}

# Arguments that are taken by who builds a part, not by its class.
_BUILDER_ARGUMENTS = {'optim_wrapper': ('constructor', 'paramwise_cfg')}


def load_config(path: str | Path, overrides: dict | None = None) -> Config:
    """Read a config file and merge ``overrides`` (dotted key → value) into it.

    Raises:
        OSError, ValueError: naming the file and what is wrong with it.
    """
    check_file(path, subject=f'Config {path}', remedy='give the path of a .py file')
    try:
        cfg = Config.fromfile(str(path))
    except Exception as error:  # a config is code: it may raise anything
        raise UserError(
            f'Config {path} cannot be read ({type(error).__name__}: '
            f'{" ".join(str(error).split())}); mend it there or in its _base_ files.'
        ) from error
    merge_overrides(cfg, overrides)
    return cfg


def merge_overrides(cfg: Config, overrides: dict | None) -> None:
    """Merge what ``--cfg-options`` gives.

    Raises:
        ValueError: naming the options, if they do not fit the config.
    """
    try:
        cfg.merge_from_dict(overrides or {})
    except (KeyError, TypeError, AssertionError, IndexError) as error:
        raise UserError(
            f'--cfg-options {" ".join(overrides)} do not fit the config '
            f'({" ".join(str(error).split())})'
        ) from error


def check_arguments(cfg: Config) -> None:
    """Compare the arguments of each part of a config with what its class takes.

    Values are compared too, with the types that this package and torch declare.
    Parts that cannot be judged from their class alone (``**kwargs``, types unknown to
    the registries, layer settings such as ``norm_cfg``) are left to the build.

    Raises:
        ValueError: naming the part, the argument and the nearest valid one, or the
            value.
    """
    init_default_scope(cfg.get('default_scope') or 'mmaction')
    _check_section(cfg.get('param_scheduler'), 'param_scheduler')
    for section, registries in _SECTION_REGISTRIES.items():
        _check_section(cfg.get(section), section)
        if section.endswith('_dataloader') and cfg.get(section):
            _check_section(cfg[section].get('dataset'), f'{section}.dataset')
            _check_part(DataLoader, cfg.get(section), section, ('num_batch_per_epoch',))
        for place, part_cfg in _parts(cfg.get(section), section):
            part = _find_class(part_cfg['type'], registries)
            if part is None:
                continue
            if not _takes_anything(part):
                _check_part(part, part_cfg, place, _BUILDER_ARGUMENTS.get(place, ()))
            sentence = wrong_type_sentence(part, part_cfg, place=place)
            if sentence is not None:
                raise UserError(sentence)


def _check_section(section: object, name: str) -> None:
    for part in section if isinstance(section, list | tuple) else [section]:
        if isinstance(part, str | int | float):
            raise UserError(
                f'{name} of the config has {part!r} where a dict is needed; write '
                'one as the configs in configs/ do.'
            )


def _check_part(
    part: type, part_cfg: dict | None, place: str, also: tuple[str, ...]
) -> None:
    valid = (*valid_arguments(part), *also, 'type', '_scope_')
    for argument in part_cfg or ():
        if argument not in valid:
            raise UserError(wrong_argument_sentence(part, argument, place=place))


def _parts(node: object, place: str) -> Iterator[tuple[str, dict]]:
    if isinstance(node, dict):
        if 'type' in node:
            yield place, node
        for key, value in node.items():
            # norm_cfg, act_cfg, init_cfg … are completed by who uses them.
            if not str(key).endswith('_cfg'):
                yield from _parts(value, f'{place}.{key}')
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _parts(value, f'{place}[{index}]')


def _find_class(name: object, registries: tuple) -> type | None:
    if inspect.isclass(name):
        return name
    for registry in registries:
        try:
            part = registry.get(name)
        except (RuntimeError, TypeError):  # how mmengine says no to some names
            continue
        if inspect.isclass(part):
            return part
    return None


def _takes_anything(part: type) -> bool:
    """Whether a class may take arguments that it does not name.

    This package hands ``**kwargs`` on to a base class; others may swallow them.
    """
    for base in inspect.getmro(part):
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            return False
        if base.__module__.partition('.')[0] != __name__.partition('.')[0]:
            return True
    return False


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
        OSError, ValueError: one sentence that names what is wrong.
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


def valid_arguments(part: type) -> list[str]:
    """Names of the arguments that a class takes, its base classes' with ``**kwargs``."""
    names: dict[str, None] = {}
    for base in inspect.getmro(part):
        if '__init__' not in vars(base) or base is object:
            continue
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
        kinds = {parameter.kind for parameter in parameters}
        names.update(
            (parameter.name, None)
            for parameter in parameters
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        )
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return list(names)


def wrong_argument_sentence(part: type, argument: str, *, place: str = '') -> str:
    """The sentence for an ``argument`` that the class ``part`` does not take."""
    where = f' ({place})' if place else ''
    valid = valid_arguments(part)
    near = nearest(argument, valid)
    remedy = near or f'; it takes {", ".join(valid) or "none"}'
    if place.startswith('model.'):
        # A child config that names another type inherits the arguments of the old one.
        remedy = f' (to replace a part, give it _delete_=True){remedy}'
    return (
        f'The config part type={part.__name__!r}{where} has no argument '
        f'{argument!r}{remedy}'
    )
