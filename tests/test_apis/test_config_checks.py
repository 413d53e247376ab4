from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Optional

import numpy as np
import pytest
from mmengine.config import Config
from tiny_stmixer import ROOT, write_project

from stmixer_mm.apis.running import build_runner
from stmixer_mm.checks.config import (
    check_arguments,
    check_run,
    fits,
    load_config,
    merge_overrides,
)
from stmixer_mm.errors import UserError

CONFIGS = sorted((ROOT / 'configs').glob('[!_]*/*.py'))


@pytest.fixture
def cfg(tmp_path):
    cfg = load_config(write_project(tmp_path))
    cfg.work_dir = str(tmp_path / 'work')
    return cfg


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_have_no_wrong_argument(path):
    check_arguments(load_config(path))


@pytest.mark.parametrize(
    ('override', 'place', 'suggestion'),
    [
        ({'model.necks': {}}, 'model', 'neck'),
        ({'model.head.assigner.match_cost': 3}, 'model.head.assigner', 'match_costs'),
        (
            {'train_dataloader.dataset.pipeline.1.clip_length': 3},
            'train_dataloader.dataset.pipeline[1]',
            'clip_len',
        ),
        ({'train_dataloader.batchsize': 3}, 'train_dataloader', 'batch_size'),
        ({'optim_wrapper.optimizer.wd': 1}, 'optim_wrapper.optimizer', None),
        ({'train_cfg.max_epoch': 1}, 'train_cfg', 'max_epochs'),
        ({'test_evaluator.annfile': ''}, 'test_evaluator', 'ann_file'),
    ],
)
def test_wrong_argument_is_named_with_its_place(cfg, override, place, suggestion):
    merge_overrides(cfg, override)
    with pytest.raises(UserError, match='has no argument') as error:
        check_arguments(cfg)
    assert f'({place})' in str(error.value)
    assert ('_delete_=True' in str(error.value)) == place.startswith('model.')
    if suggestion:
        assert str(error.value).endswith(f'did you mean {suggestion}?')


@pytest.mark.parametrize(
    ('override', 'place', 'near'),
    [
        ({'model.type': 'STMixr'}, 'model', 'STMixer'),
        ({'optim_wrapper.type': 'Qqqq'}, 'optim_wrapper', None),
        ({'optim_wrapper.optimizer.type': 'SGDD'}, 'optim_wrapper.optimizer', 'SGD'),
        ({'param_scheduler': dict(type='LinerLR')}, 'param_scheduler', 'LinearLR'),
        ({'custom_hooks': [dict(type='EMAHok')]}, r'custom_hooks[0]', 'EMAHook'),
    ],
)
def test_unknown_type_is_named_with_the_nearest(cfg, override, place, near):
    merge_overrides(cfg, override)
    with pytest.raises(UserError) as error:
        check_arguments(cfg)
    assert str(error.value).startswith(f'{place}.type=')
    if near:
        assert str(error.value).endswith(f'did you mean {near}?')
    else:
        assert 'custom_imports' in str(error.value)


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
def test_what_works_is_not_refused(cfg, override):
    merge_overrides(cfg, override)
    check_arguments(cfg)


@pytest.mark.parametrize(
    ('override', 'words'),
    [
        (
            {
                'model.neck': dict(
                    type='FramewiseNeck',
                    neck=dict(
                        type='mmdet.FPN',
                        in_channels=[4, 8],
                        out_channels=4,
                        num_outs=1,
                    ),
                    _delete_=True,
                )
            },
            r'\(mmdet\.FPN: AssertionError\)',
        ),
        (
            {'train_cfg.max_epochs': 1.5},
            r'^The train_loop of config .*tiny\.py cannot be built \(.* 1\.5',
        ),
        ({'optim_wrapper.optimizer.lr': 'a'}, 'cannot be built'),
        ({'param_scheduler': dict(type='LinearLR', begin='a')}, 'cannot be built'),
        ({'param_scheduler': [5]}, 'param_scheduler'),
        ({'val_dataloader.batch_size': 'a'}, 'batch_size'),
        ({'val_dataloader.dataset.ann_file': 'no.csv'}, r'no\.csv'),
    ],
)
def test_what_cannot_be_built_is_found_before_the_first_step(cfg, override, words):
    merge_overrides(cfg, override)
    cfg.work_dir += str(abs(hash(words)))
    with pytest.raises(UserError, match=words) as error:
        build_runner(cfg).train()
    assert '\n' not in str(error.value)


def test_bug_in_a_step_keeps_its_traceback(cfg, monkeypatch):
    runner = build_runner(cfg)
    monkeypatch.setattr(type(runner.model.head), 'loss', None)
    with pytest.raises(TypeError):
        runner.train()


@pytest.mark.parametrize(
    ('override', 'words'),
    [
        (
            {'test_evaluator.score_thr': 'a'},
            r"^FrameMAPMetric \(test_evaluator\) takes score_thr as float.*, not 'a';",
        ),
        (
            {'test_evaluator.ann_file': None},
            r'ann_file as str \| Sequence\[str\], not None;',
        ),
        (
            {'train_dataloader.dataset.pipeline.1.clip_len': 'a'},
            r"\(train_dataloader.dataset.pipeline\[1\]\) takes clip_len as int, not 'a';",
        ),
        ({'model.neck': 'abc'}, "takes neck as dict .*, not 'abc';"),
        ({'model': 'abc'}, r"takes model as .*\bDict\b.*, not 'abc';"),
        ({'test_evaluator': 'abc'}, r"takes test_evaluator as .*Dict.*, not 'abc';"),
        (
            {'val_dataloader.dataset': 'abc'},
            r"\(val_dataloader\) takes dataset as dict, not 'abc';",
        ),
    ],
)
def test_value_of_a_wrong_type_is_named_with_its_place(cfg, override, words):
    merge_overrides(cfg, override)
    with pytest.raises(UserError, match=words) as error:
        check_arguments(cfg)
    assert str(error.value).endswith('.')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        (None, 'does not exist'),
        ('model = dict(', 'was never closed'),
        ('model = nothing', "'nothing' is not defined"),
        ("_base_ = './no.py'", 'no.py'),
    ],
)
def test_broken_config_is_named_with_the_reason(tmp_path, text, reason):
    path = tmp_path / 'broken.py'
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=r'broken\.py') as error:
        load_config(path)
    assert reason in str(error.value)
    assert '\n' not in str(error.value)


def test_overrides_that_do_not_fit_are_named():
    cfg = Config(dict(steps=[1, 2]))
    with pytest.raises(UserError, match=r'--cfg-options steps\.7 do not fit'):
        merge_overrides(cfg, {'steps.7': 3})


def test_run_is_checked_before_it_starts(cfg, tmp_path):
    check_run(cfg, 'train')
    cfg.load_from = str(tmp_path / 'absent.pth')
    with pytest.raises(UserError, match=r'absent\.pth does not exist'):
        check_run(cfg, 'train')


@pytest.mark.parametrize(
    ('absent', 'mode', 'words'),
    [
        (['model'], 'test', 'no model, which the train loop needs;'),
        (['train_cfg'], 'train', 'no train_cfg, which the train loop'),
        (['val_evaluator'], 'train', 'no val_evaluator, which the val loop'),
        (
            ['test_dataloader', 'test_cfg', 'test_evaluator'],
            'test',
            'no test_dataloader, test_cfg, test_evaluator, which the test loop',
        ),
    ],
)
def test_sections_that_a_run_needs(cfg, absent, mode, words):
    cfg.update(dict.fromkeys(absent))
    with pytest.raises(UserError, match=words):
        check_run(cfg, mode)


def test_a_run_needs_no_sections_of_others(cfg):
    for section in ('dataloader', 'cfg', 'evaluator'):
        cfg[f'val_{section}'] = cfg[f'test_{section}'] = None
    check_run(cfg, 'train')


def test_checkpoint_to_resume_is_looked_up_in_the_work_dir(cfg, tmp_path):
    cfg.resume = True
    check_run(cfg, 'train')  # nothing to resume: mmengine starts anew
    (tmp_path / 'work' / 'last_checkpoint').write_text('/gone/epoch_3.pth')
    with pytest.raises(UserError, match=r"last_checkpoint names '/gone/epoch_3\.pth'"):
        check_run(cfg, 'train')


def test_work_dir_in_whose_way_a_file_is(cfg, tmp_path):
    (tmp_path / 'work').write_text('')
    with pytest.raises(UserError, match='work cannot be written to'):
        check_run(cfg, 'train')


@pytest.mark.parametrize(
    ('hint', 'fitting', 'others'),
    [
        (int, [3, np.int64(3)], ['3', 3.0, True, None, [3]]),
        (float, [3, 0.5, np.float32(1)], ['0.5', True, None, [0.5]]),
        (bool, [True, 0, np.True_], ['yes', None, 0.5]),
        (str, ['a', Path('a')], [3, None, ['a']]),
        (int | None, [3, None], ['None', 0.5]),
        (Optional[dict], [{}, None], ['a']),  # noqa: UP045
        (Literal['a', 'b'], ['a'], ['c']),
        (Sequence[int], [[1], (1, 2), [], np.ones(2, int)], ['12', 3, ['a'], {1: 1}]),
        (tuple[int, int], [(1, 2), [1, 2]], [(1, 'a'), 3]),
        (list, [[1], ('a',)], ['a', 3]),
        (Mapping[str, str], [{}, {'a': 'b'}], ['a', None]),
        (str | Sequence[str], ['a', ['a']], [['a', 1], None, 5]),
        (Sequence[dict | Callable], [[{}, print]], [['a'], 'a']),
        (np.ndarray, [np.ones(2), [1, 2], {}], ['a', 3, None]),
        (Any, [3, 'a', None], []),
        ('int | None', [3, 'a', None], []),  # not evaluated
    ],
    ids=str,
)
def test_values_fit_their_types(hint, fitting, others):
    assert [value for value in fitting if not fits(value, hint)] == []
    assert [value for value in others if fits(value, hint)] == []
