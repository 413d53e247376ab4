import pytest
from mmengine.runner import FlexibleRunner
from tiny_stmixer import write_project

from stmixer_mm.apis import config
from stmixer_mm.apis.config import (
    check_arguments,
    check_run,
    load_config,
    merge_overrides,
)
from stmixer_mm.apis.running import build_runner
from stmixer_mm.errors import UserError


@pytest.fixture
def cfg(tmp_path):
    cfg = load_config(write_project(tmp_path))
    cfg.work_dir = str(tmp_path / 'work')
    return cfg


FLIP = dict(type='ImgAug', transforms=[dict(type='Fliplr', p=0.5)])


@pytest.mark.parametrize(
    'override',
    [
        {'optim_wrapper.paramwise_cfg': dict(bypass_duplicate=True)},
        {'custom_hooks': [dict(type='mmdet.NumClassCheckHook', priority='LOW')]},
        {'param_scheduler': dict(type='LinearLR', convert_to_iter_based=True)},
        # Of a registry that has functions.
        {'train_dataloader.collate_fn': dict(type='default_collate')},
        # Names of another library, within a part of a host.
        {'train_dataloader.dataset.pipeline': [FLIP]},
        {'model': dict(type='FastRCNN', _scope_='mmdet', _delete_=True)},
        # Variables of the config.
        {'train_pipeline': [], 'val_evaluator_small': {}, 'dataloader': {}},
        {'total_epochs': 7, 'train_cfg.max_epochs': 7},
        {'custom_hooks': [dict(type='EMAHook', ema_type='mmdet.ExpMomentumEMA')]},
        # A class with its module.
        {'model.neck': dict(type='torch.nn.Identity', _delete_=True)},
    ],
)
def test_valid_configs_pass(cfg, override):
    merge_overrides(cfg, override)
    check_arguments(cfg)


def test_a_runner_of_another_type_is_built(cfg):
    cfg.runner_type = 'FlexibleRunner'
    assert type(build_runner(cfg)) is FlexibleRunner


def test_a_run_needs_the_sections_of_its_loop_alone(cfg):
    for section in ('dataloader', 'cfg', 'evaluator'):
        cfg[f'val_{section}'] = cfg[f'test_{section}'] = None
    check_run(cfg, 'train')
    with pytest.raises(UserError, match='test_dataloader'):
        check_run(cfg, 'test')


def test_the_project_of_an_unknown_part_is_named(cfg, monkeypatch):
    parts = config._list_project_parts()
    assert parts['DenoisingQueries'] == 'stmixer_mm.projects.denoising'
    # A part of it that no other test has imported.
    parts = parts | dict(Unimported='stmixer_mm.projects.denoising')
    monkeypatch.setattr(config, '_list_project_parts', lambda: parts)
    cfg.model.decoder.type = 'Unimported'
    with pytest.raises(UserError, match=r"'stmixer_mm\.projects\.denoising' in cus"):
        check_arguments(cfg)
