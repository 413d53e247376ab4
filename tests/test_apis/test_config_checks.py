import pytest
from tiny_stmixer import write_project

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


@pytest.mark.parametrize(
    ('override', 'place', 'suggestion'),
    [
        ({'model.head.num_clases': 3}, 'model.head', 'num_classes'),
        ({'model.head.assigner.match_cost': 3}, 'model.head.assigner', 'match_costs'),
        (
            {'train_dataloader.dataset.pipeline.1.clip_length': 3},
            'train_dataloader.dataset.pipeline[1]',
            'clip_len',
        ),
        ({'train_dataloader.batchsize': 3}, 'train_dataloader', 'batch_size'),
        ({'train_cfg.max_epoch': 1}, 'train_cfg', 'max_epochs'),
        ({'test_evaluator.annfile': ''}, 'test_evaluator', 'ann_file'),
        ({'model.type': 'STMixr'}, 'model', 'STMixer'),
        ({'optim_wrapper.optimizer.type': 'SGDD'}, 'optim_wrapper.optimizer', 'SGD'),
        ({'custom_hooks': [dict(type='EMAHok')]}, 'custom_hooks[0]', 'EMAHook'),
    ],
)
def test_unknown_names_are_reported_with_the_nearest(cfg, override, place, suggestion):
    merge_overrides(cfg, override)
    with pytest.raises(UserError) as error:
        check_arguments(cfg)
    assert place in str(error.value)
    assert str(error.value).endswith(f'did you mean {suggestion}?')


@pytest.mark.parametrize(
    'override',
    [
        {'optim_wrapper.paramwise_cfg': dict(bypass_duplicate=True)},
        {'model.backbone.norm_cfg': dict(type='BN3d', requires_grad=False)},
        {'custom_hooks': [dict(type='CheckCheckpointHook', priority='LOW')]},
        {'custom_hooks': [dict(type='mmdet.NumClassCheckHook')]},
        {'param_scheduler': dict(type='LinearLR', convert_to_iter_based=True)},
        # Of a registry that has functions.
        {'train_dataloader.collate_fn': dict(type='default_collate')},
        {'train_dataloader.dataset.pipeline': [dict(type='mmdet.RandomAffine')]},
        # Names of another library, within a part of a host.
        {
            'train_dataloader.dataset.pipeline': [
                dict(type='ImgAug', transforms=[dict(type='Fliplr', p=0.5)])
            ]
        },
        {'model': dict(type='FastRCNN', _scope_='mmdet', _delete_=True)},
        # A class with its module.
        {'model.neck': dict(type='torch.nn.Identity', _delete_=True)},
    ],
)
def test_valid_configs_pass(cfg, override):
    merge_overrides(cfg, override)
    check_arguments(cfg)


def test_what_cannot_be_built_is_found_before_the_first_step(cfg):
    neck = dict(type='mmdet.FPN', in_channels=[4, 8], out_channels=4, num_outs=1)
    neck = dict(type='FramewiseNeck', neck=neck, _delete_=True)
    merge_overrides(cfg, {'model.neck': neck})
    with pytest.raises(UserError, match='FPN') as error:
        build_runner(cfg).train()
    assert '\n' not in str(error.value)


def test_bug_in_a_step_keeps_its_traceback(cfg, monkeypatch):
    runner = build_runner(cfg)
    monkeypatch.setattr(type(runner.model), 'loss', None)
    with pytest.raises(TypeError):
        runner.train()


def test_a_run_needs_the_sections_of_its_loop_alone(cfg):
    for section in ('dataloader', 'cfg', 'evaluator'):
        cfg[f'val_{section}'] = cfg[f'test_{section}'] = None
    check_run(cfg, 'train')
    with pytest.raises(UserError, match='test_dataloader'):
        check_run(cfg, 'test')
