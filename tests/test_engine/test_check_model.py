"""A model that does not fit its data does not start; one that fits is left alone."""

import random

import numpy as np
import pytest
import torch
from mmengine.config import Config
from tiny_stmixer import write_project

from stmixer_mm.apis.running import build_runner
from stmixer_mm.engine.hooks import CheckModelHook
from stmixer_mm.errors import UserError


@pytest.fixture
def config(tmp_path):
    config = Config.fromfile(write_project(tmp_path))
    config.work_dir, config.launcher = str(tmp_path), 'none'
    config.log_level = 'ERROR'
    return config


def test_a_test_whose_clips_do_not_fit_does_not_start(config):
    config.test_dataloader.dataset.pipeline[1].clip_len = 6
    with pytest.raises(UserError, match='num_frames'):
        build_runner(config, 'test').test()


def seed():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_a_check_changes_nothing(config):
    """Among it the random numbers, of which the pipeline draws some."""
    pipeline = config.train_dataloader.dataset.pipeline
    pipeline.insert(3, dict(type='Flip', flip_ratio=0.5))
    runner = build_runner(config)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    before = {key: value.clone() for key, value in runner.model.state_dict().items()}
    seed()
    expected = draw()
    seed()
    CheckModelHook().before_run(runner)
    assert draw() == expected
    assert all(module.training for module in runner.model.decoder.modules())
    for key, value in runner.model.state_dict().items():
        assert torch.equal(value, before[key])
