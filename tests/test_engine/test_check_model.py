"""A model that fits its data is left alone."""

import random

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import set_random_seed
from tiny_stmixer import write_project

from stmixer_mm.apis.running import build_runner
from stmixer_mm.engine.hooks import CheckModelHook


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_a_check_changes_nothing(tmp_path):
    """Among it the random numbers, of which the pipeline draws some."""
    config = Config.fromfile(write_project(tmp_path))
    config.update(work_dir=str(tmp_path), launcher='none', log_level='ERROR')
    pipeline = config.train_dataloader.dataset.pipeline
    pipeline.insert(3, dict(type='Flip', flip_ratio=0.5))
    runner = build_runner(config)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    before = {key: value.clone() for key, value in runner.model.state_dict().items()}
    drawn = []
    for check in (lambda runner: None, CheckModelHook().before_run):
        set_random_seed(0)
        check(runner)
        drawn.append(draw())
    assert drawn[0] == drawn[1]
    assert all(module.training for module in runner.model.decoder.modules())
    torch.testing.assert_close(runner.model.state_dict(), before, rtol=0, atol=0)
