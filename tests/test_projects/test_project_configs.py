"""Configs that name a project, as those of the core in tests/test_configs."""

import pytest
from every_config import (
    OF_PROJECTS,
    assert_each_builds_alone,
    assert_trains_and_predicts,
    assert_trains_in_a_hosts_tool,
    each,
    experiments,
)


def test_each_builds_with_what_it_imports():
    assert_each_builds_alone(OF_PROJECTS)


@each(experiments(OF_PROJECTS))
def test_losses_gradients_and_predictions(path):
    assert_trains_and_predicts(path)


@pytest.mark.parametrize('host', ['mmaction', 'mmdet'])
@pytest.mark.parametrize(
    'name', ['stmixer-t_tiny-fpn3d', 'stmixer_tiny-masks', 'stmixer_tiny-rpn-boxes']
)
def test_a_training_step_of_the_hosts_tools(host, name, tmp_path, monkeypatch):
    assert_trains_in_a_hosts_tool(host, name, tmp_path, monkeypatch)
