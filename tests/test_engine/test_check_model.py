"""A model that fits its data is left alone."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.runner import set_random_seed
from tiny_stmixer import write_project

from stmixer_mm.apis.running import build_runner
from stmixer_mm.engine.hooks import CheckModelHook
from stmixer_mm.errors import UserError


def test_a_check_changes_nothing(tmp_path):
    """Among it the random numbers, of which the pipeline draws some."""
    config = Config.fromfile(write_project(tmp_path))
    config.update(work_dir=str(tmp_path), launcher='none', log_level='ERROR')
    pipeline = config.train_dataloader.dataset.pipeline
    pipeline.insert(3, dict(type='Flip', flip_ratio=0.5))
    runner = build_runner(config)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    weights = {key: value.clone() for key, value in runner.model.state_dict().items()}
    drawn = []
    for check in (lambda runner: None, CheckModelHook().before_run):
        set_random_seed(0)
        check(runner)
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]
    assert all(module.training for module in runner.model.decoder.modules())
    torch.testing.assert_close(runner.model.state_dict(), weights, rtol=0, atol=0)


def test_the_first_step_names_what_got_no_gradient(caplog):
    used, unused, frozen = (torch.nn.Linear(2, 2, bias=False) for _ in range(3))
    model = torch.nn.Sequential(used, unused, frozen)
    logger = MMLogger('idle')
    logger.addHandler(caplog.handler)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    optim_wrapper = OptimWrapper(optimizer)
    runner = SimpleNamespace(model=model, logger=logger, optim_wrapper=optim_wrapper)
    hook = CheckModelHook()
    hook.before_train(runner)
    frozen.requires_grad_(False)  # as some backbones do in training mode
    for step in range(2):
        optim_wrapper.update_params((used, unused)[step](torch.ones(1, 2)).sum())
    (line,) = caplog.messages
    assert ' 1.weight' in line and '0.weight' not in line and '2.weight' not in line
    model.find_unused_parameters = model.static_graph = False  # as of a wrapper
    hook.before_train(runner)
    with pytest.raises(UserError, match='find_unused_parameters'):
        optim_wrapper.update_params(used(torch.ones(1, 2)).sum())
