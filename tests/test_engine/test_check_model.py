"""A model that does not fit its data does not start; one that fits is left alone."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from tiny_stmixer import write_project

from stmixer_mm.apis.running import build_runner
from stmixer_mm.engine.hooks import CheckModelHook, check_classes
from stmixer_mm.errors import UserError


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp('project'))


@pytest.fixture
def runner_of(project, tmp_path):
    """The runner of the tiny project with other settings."""

    def make(**settings):
        config = Config.fromfile(project)
        config.merge_from_dict(settings)
        config.work_dir, config.launcher = str(tmp_path), 'none'
        config.log_level = 'ERROR'
        return build_runner(config)

    return make


WRONG = {
    'clip length': (
        {'dataset.pipeline.1.clip_len': 6},
        'num_frames',
    ),
    'width': (
        {'model.neck.out_channels': 8},
        'embed_dims',
    ),
    'classes': (
        {'model.head.num_classes': 5},
        'num_classes',
    ),
}


@pytest.mark.parametrize('run', ['train', 'test'])
@pytest.mark.parametrize('name', WRONG)
def test_a_model_that_does_not_fit_does_not_start(runner_of, name, run):
    settings, sentence = WRONG[name]
    runner = runner_of(
        **{
            key.replace('dataset.', f'{run}_dataloader.dataset.'): value
            for key, value in settings.items()
        }
    )
    with pytest.raises(UserError, match=sentence):
        getattr(runner, run)()
    assert runner.iter == 0


@pytest.mark.parametrize('known', [5, 4, None])
def test_metrics_are_compared_as_far_as_they_know(known):
    loop = SimpleNamespace(
        dataloader=SimpleNamespace(dataset=[]),
        evaluator=SimpleNamespace(metrics=[SimpleNamespace(num_classes=known)]),
    )
    model = SimpleNamespace(num_classes=5, num_classes_key='model.head.num_classes')
    if known != 4:
        return check_classes(model, loop)
    with pytest.raises(UserError, match='num_classes'):
        check_classes(model, loop)


def seed():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_a_check_changes_nothing(runner_of):
    """Among it the random numbers, of which the pipeline draws some."""
    runner = runner_of()
    pipeline = runner.cfg.train_dataloader.dataset.pipeline
    pipeline.insert(3, dict(type='Flip', flip_ratio=0.5))
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
