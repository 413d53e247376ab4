"""Bad input to the tools and parts of the projects: data/bad_input_of_projects.txt."""

import pytest
from bad_input import check_row, read_table, write_files


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp('files'))


@pytest.mark.parametrize('row', read_table('bad_input_of_projects.txt'))
def test_bad_input_ends_with_one_sentence(folder, row, monkeypatch, capsys):
    check_row(row, folder, monkeypatch, capsys)
