"""Models from configs, with random weights."""

import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.utils import get_installed_path
from torch import nn

from stmixer_mm.apis.config import building, check_arguments, check_device, load_config
from stmixer_mm.errors import UserError, blame
from stmixer_mm.projects.profiling.clips import Shape, random_clip
from stmixer_mm.registry import MODELS


def quieten() -> None:
    """Keep hosts and back ends from logging below errors."""
    if not MMLogger.check_instance_created('analysis'):
        MMLogger.get_instance('analysis', log_level='ERROR')


def read_config(path: str | Path, overrides: dict | None = None) -> Config:
    """A config from a file, or of an installed package as in ``mmdet::a/b.py``."""
    package, _, inner = str(path).rpartition('::')
    if package:
        remedy = 'give mmaction::…, mmdet::… or a file'
        with blame(f'Config {path} is of {package}, which is not installed', remedy):
            path = Path(get_installed_path(package), '.mim', 'configs', inner)
    cfg = load_config(path, overrides)
    if not isinstance(cfg.get('model'), dict):
        raise UserError(f'Config {path} has no model; give the config of a detector.')
    return cfg


def build_model(cfg: Config, *, device: str = 'cpu') -> nn.Module:
    """A model in evaluation mode with random weights; nothing is downloaded."""
    check_device(device)
    model = construct_model(cfg)
    model.init_weights()
    return model.to(device).eval()


def construct_model(cfg: Config) -> nn.Module:
    """A model that is not initialised, and will not download pretrained weights."""
    scope = cfg.get('default_scope') or 'mmaction'
    cfg = Config(dict(model=cfg.model, default_scope=scope), filename=cfg.filename)
    check_arguments(cfg)
    with DefaultScope.overwrite_default_scope(scope), building(cfg, 'model'):
        model = MODELS.build(cfg.model)
    for module in model.modules():
        if isinstance(getattr(module, 'pretrained', None), str):
            module.pretrained = None
        settings = getattr(module, 'init_cfg', None)
        if isinstance(settings, dict) and settings.get('type') == 'Pretrained':
            module.init_cfg = None
    return model


def detection(
    name: str, *, shape: Shape, device: str, overrides: dict | None = None
) -> Callable[[], object]:
    """A function that detects once in a clip of noise.

    Args:
        name: A config, or FILE.py:FUNCTION: what that function returns is called.
        shape: Frames, height and width of a config's clip; None: its test pipeline's.
        device: Of a config's model.
        overrides: Of a config.
    """
    file, _, function = name.rpartition(':')
    with blame(f'{name} cannot be measured'):
        if file.endswith('.py'):
            return runpy.run_path(file)[function]()
        cfg = read_config(name, overrides)
        clip = random_clip(cfg, shape=shape)
        return partial(build_model(cfg, device=device).test_step, clip)
