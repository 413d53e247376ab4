import pytest
from mmengine.config import Config
from tiny_stmixer import ROOT, write_project

from stmixer_mm.checks.config import (
    check_arguments,
    check_run,
    load_config,
    merge_overrides,
)

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
        ({'model.decoder.num_query': 3}, 'model.decoder', 'num_queries'),
        ({'model.head.assigner.match_cost': 3}, 'model.head.assigner', 'match_costs'),
        (
            {'train_dataloader.dataset.pipeline.1.clip_length': 3},
            'train_dataloader.dataset.pipeline[1]',
            'clip_len',
        ),
        ({'train_dataloader.batchsize': 3}, 'train_dataloader', 'batch_size'),
        ({'val_dataloader.dataset.annfile': ''}, 'val_dataloader.dataset', 'ann_file'),
        ({'optim_wrapper.optimizer.wd': 1}, 'optim_wrapper.optimizer', None),
        ({'optim_wrapper.clip_gard': 1}, 'optim_wrapper', 'clip_grad'),
        ({'train_cfg.max_epoch': 1}, 'train_cfg', 'max_epochs'),
        ({'test_evaluator.annfile': ''}, 'test_evaluator', 'ann_file'),
        (
            {'default_hooks.check_checkpoint.alow': []},
            'default_hooks.check_checkpoint',
            'allow',
        ),
    ],
)
def test_wrong_argument_is_named_with_its_place(cfg, override, place, suggestion):
    merge_overrides(cfg, override)
    with pytest.raises(ValueError, match='has no argument') as error:
        check_arguments(cfg)
    assert f'({place})' in str(error.value)
    assert ('_delete_=True' in str(error.value)) == place.startswith('model.')
    if suggestion:
        assert str(error.value).endswith(f'did you mean {suggestion}?')


@pytest.mark.parametrize(
    'override',
    [
        {'optim_wrapper.paramwise_cfg': dict(bypass_duplicate=True)},
        {'model.backbone.norm_cfg': dict(type='BN3d', requires_grad=False)},
        {'model.unknown_type': None, 'model.type': 'NobodyKnows'},
    ],
)
def test_what_the_class_alone_cannot_tell_is_left_to_the_build(cfg, override):
    merge_overrides(cfg, override)
    check_arguments(cfg)


@pytest.mark.parametrize(
    ('override', 'words'),
    [
        (
            {'test_evaluator.score_thr': 'a'},
            r"'FrameMAPMetric' \(test_evaluator\) takes score_thr as float, not 'a';",
        ),
        (
            {'test_evaluator.ann_file': None},
            r'ann_file as str \| Sequence\[str\], not None;',
        ),
        (
            {'train_dataloader.dataset.pipeline.1.clip_len': 'a'},
            r"\(train_dataloader.dataset.pipeline\[1\]\) takes clip_len as int, not 'a';",
        ),
        (
            {'train_dataloader.dataset.timestamp_start': 'abc'},
            "takes timestamp_start as float, not 'abc';",
        ),
        ({'model.neck': 'abc'}, "takes neck as dict .*, not 'abc';"),
        ({'test_evaluator': 'abc'}, "^test_evaluator .* has 'abc' where a dict .*;"),
        ({'val_dataloader.dataset': 'abc'}, "^val_dataloader.dataset .* has 'abc' "),
        ({'param_scheduler': [5]}, '^param_scheduler .* has 5 where a dict '),
    ],
)
def test_value_of_a_wrong_type_is_named_with_its_place(cfg, override, words):
    merge_overrides(cfg, override)
    with pytest.raises(ValueError, match=words) as error:
        check_arguments(cfg)
    assert str(error.value).endswith('.')
    assert '\n' not in str(error.value)


def test_missing_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no\.py does not exist'):
        load_config(tmp_path / 'no.py')
    with pytest.raises(FileNotFoundError, match='is a folder'):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('model = dict(', 'SyntaxError'),
        ('model = nothing', 'NameError'),
        ("_base_ = './no.py'", 'no.py'),
    ],
)
def test_broken_config_is_named_with_the_reason(tmp_path, text, reason):
    path = tmp_path / 'broken.py'
    path.write_text(text)
    with pytest.raises(ValueError, match=r'broken\.py cannot be read') as error:
        load_config(path)
    assert reason in str(error.value)
    assert '\n' not in str(error.value)


def test_overrides_that_do_not_fit_are_named():
    cfg = Config(dict(steps=[1, 2]))
    with pytest.raises(ValueError, match=r'--cfg-options steps\.7 do not fit'):
        merge_overrides(cfg, {'steps.7': 3})


def test_run_is_checked_before_it_starts(cfg, tmp_path):
    check_run(cfg, 'train')
    cfg.load_from = str(tmp_path / 'absent.pth')
    with pytest.raises(FileNotFoundError, match=r'absent\.pth does not exist'):
        check_run(cfg, 'train')


@pytest.mark.parametrize(
    ('absent', 'mode', 'words'),
    [
        ('model', 'test', 'no model, which the train loop needs;'),
        ('train_cfg', 'train', 'no train_cfg, which the train loop'),
        ('val_evaluator', 'train', 'no val_evaluator, which the val loop'),
    ],
)
def test_sections_that_a_run_needs(cfg, absent, mode, words):
    cfg[absent] = None
    with pytest.raises(ValueError, match=words):
        check_run(cfg, mode)


def test_an_empty_config_is_told_all_that_it_needs(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path)))
    with pytest.raises(
        ValueError, match='no model, test_dataloader, test_cfg, test_ev'
    ):
        check_run(cfg, 'test')


def test_a_run_needs_no_sections_of_others(cfg):
    for section in ('dataloader', 'cfg', 'evaluator'):
        cfg[f'val_{section}'] = cfg[f'test_{section}'] = None
    check_run(cfg, 'train')


def test_checkpoint_to_resume_is_looked_up_in_the_work_dir(cfg, tmp_path):
    cfg.resume = True
    check_run(cfg, 'train')  # nothing to resume: mmengine starts anew
    (tmp_path / 'work' / 'last_checkpoint').write_text('/gone/epoch_3.pth')
    with pytest.raises(FileNotFoundError, match=r'/gone/epoch_3\.pth does not exist'):
        check_run(cfg, 'train')


def test_work_dir_in_whose_way_a_file_is(cfg, tmp_path):
    (tmp_path / 'work').write_text('')
    with pytest.raises(OSError, match='a file of that name is in the way'):
        check_run(cfg, 'train')
