"""Configs that name a project, as those of the core in tests/test_configs."""

from importlib import import_module
from pathlib import Path

import pytest
import torch
from every_config import (
    CONFIGS,
    OF_PROJECTS,
    assert_each_is_whole,
    assert_trains_and_predicts,
    each,
    experiments,
)
from exchanges import TUBELETS, exchanged
from mmengine.config import Config
from run_tool import run_tool


def test_each_is_whole_with_what_it_imports():
    assert_each_is_whole(OF_PROJECTS)


@each(experiments(OF_PROJECTS))
def test_losses_gradients_and_predictions(path):
    assert_trains_and_predicts(Config.fromfile(path))


FPN = 'framewise-fpn-batchnorm-leaky'


@pytest.mark.parametrize('name', ['csn', 'swin3d', 'pvt2d', 'framewise-nasfpn', FPN])
def test_an_exchange_of_one_part_with_tubelets(name):
    assert_trains_and_predicts(exchanged(name, TUBELETS))


ONE_STEP = [
    'train_cfg._delete_=True',
    'train_cfg.type=IterBasedTrainLoop',
    'train_cfg.max_iters=1',
    'param_scheduler=[]',
    'log_processor.by_epoch=False',
    'default_hooks.checkpoint.by_epoch=False',
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_cfg=None',
    'val_dataloader=None',
    'val_evaluator=None',
]


@pytest.mark.parametrize(
    ('host', 'name'),
    [
        ('mmaction', 'experiments/stmixer_tiny-masks'),
        ('mmdet', 'stmixer/stmixer-t_tiny_1xb8-4x3x1'),
    ],
)
def test_a_training_step_of_the_hosts_tools(host, name, tmp_path, monkeypatch):
    """By a host's own script, on new toy data."""
    videos = '--train-videos', 1, '--val-videos', 1, '--workers', 0
    run_tool('make_toy_dataset', '--out', tmp_path / 'data/toy', *videos)
    monkeypatch.chdir(tmp_path)
    run_tool(
        Path(import_module(host).__file__).parent / '.mim/tools/train.py',
        CONFIGS / f'{name}_toy.py',
        *('--work-dir', '.', '--cfg-options', *ONE_STEP, f'default_scope={host}'),
    )
    state = torch.load('iter_1.pth', weights_only=False)['state_dict']
    assert all(value.isfinite().all() for value in state.values())
