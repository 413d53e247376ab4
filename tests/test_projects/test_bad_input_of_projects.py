"""Bad input to the tools and parts of the projects: data/bad_input_of_projects.txt."""

import pickle

import numpy as np
import pytest
from bad_input import NO_PICKLE, check_content, check_row, read_table, write_files

from stmixer_mm.projects.roi.proposals import read_proposals

BOX = np.array([[0, 0, 1, 1, 0.5]])
PROPOSALS = [
    *NO_PICKLE,
    pickle.dumps({'a,0001': BOX})[:40],
    {'a,0001': BOX * np.nan},
    {'a,0001': BOX[:, [2, 3, 0, 1]]},
    {'a,0001': BOX * 64},
    {'a,0001': BOX[:, :3]},
    {'a,0001': 'x'},
    [BOX],
    {'c,0001': BOX},
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp('files'))


@pytest.mark.parametrize('row', read_table('bad_input_of_projects.txt'))
def test_bad_input_ends_with_one_sentence(folder, row, monkeypatch, capsys):
    check_row(row, folder, monkeypatch, capsys)


@pytest.mark.parametrize('content', PROPOSALS)
def test_bad_proposals(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    check_content(
        tmp_path / 'found.pkl',
        content,
        lambda path: read_proposals(str(path), ['a,0001']),
    )
