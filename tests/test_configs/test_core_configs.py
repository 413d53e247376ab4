"""Every config without projects is whole by itself, and every experiment works."""

import pytest
from every_config import (
    ALL,
    CONFIGS,
    CORE,
    assert_each_is_whole,
    assert_trains_and_predicts,
    each,
    experiments,
)
from exchanges import EXCHANGES, exchanged
from mmengine.config import Config
from mmengine.infer import BaseInferencer


def test_each_is_whole_with_what_it_imports():
    assert_each_is_whole(CORE)


@each(experiments(CORE))
def test_losses_gradients_and_predictions(path):
    assert_trains_and_predicts(Config.fromfile(path))


@pytest.mark.parametrize('name', EXCHANGES)
def test_an_exchange_of_one_part(name):
    assert_trains_and_predicts(exchanged(name))


def test_a_config_anywhere_may_build_on_one(tmp_path):
    path, *_ = CORE
    mine = tmp_path / 'mine.py'
    mine.write_text(f"_base_ = 'stmixer_mm::{path.relative_to(CONFIGS)}'")
    assert Config.fromfile(mine).to_dict() == Config.fromfile(path).to_dict()
    assert 'stmixer_slowonly-r50_ava22' in BaseInferencer.list_models('stmixer_mm')


def test_experiments_are_linked_in_the_docs():
    text = (CONFIGS.parent / 'docs/mixing.md').read_text()
    paths = experiments(ALL)
    missing = [path for path in paths if f'/experiments/{path.name})' not in text]
    missing += [name for name in EXCHANGES if f'`{name}`' not in text]
    assert not missing
