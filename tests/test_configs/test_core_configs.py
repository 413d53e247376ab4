"""Every config without projects builds by itself, and every experiment works."""

import pytest
from every_config import (
    ALL,
    CONFIGS,
    CORE,
    assert_each_builds_alone,
    assert_trains_and_predicts,
    assert_trains_in_a_hosts_tool,
    each,
    experiments,
)


@pytest.mark.parametrize('kind', ['experiments', 'others'])
def test_each_builds_with_what_it_imports(kind):
    tried = experiments(CORE)
    others = [path for path in CORE if path not in tried]
    assert_each_builds_alone(tried if kind == 'experiments' else others)


@each(experiments(CORE))
def test_losses_gradients_and_predictions(path):
    assert_trains_and_predicts(path)


@pytest.mark.parametrize('host', ['mmaction', 'mmdet'])
@pytest.mark.parametrize('experiment', ['framewise-pafpn', 'c2d', 'max-iou-assigner'])
def test_a_training_step_of_the_hosts_tools(host, experiment, tmp_path, monkeypatch):
    name = f'stmixer_tiny-{experiment}'
    assert_trains_in_a_hosts_tool(host, name, tmp_path, monkeypatch)


def test_experiments_are_linked_in_the_docs():
    text = (CONFIGS.parent / 'docs/mixing.md').read_text()
    paths = experiments(ALL)
    missing = [each for each in paths if f'/experiments/{each.name})' not in text]
    assert not missing
