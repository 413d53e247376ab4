"""Bad input to the tools and parts of the projects: data/bad_input_of_projects.txt."""

import pickle

import numpy as np
import pytest
import torch
from bad_input import (
    NO_PICKLE,
    check_content,
    check_row,
    read_data,
    read_table,
    write_files,
)
from mmaction.structures import ActionDataSample

from stmixer_mm.apis import init_detector
from stmixer_mm.projects.export.metadata import Metadata
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


ABOUT = Metadata(classes=['stand', 'walk'], shape=[2, 32, 43], batch=1).to_text()
ROWS = read_table('foreign_models.txt')
FOREIGN_MODELS = [row.replace('\\n', '\n').split(' => ', 1) for row in ROWS]


@pytest.mark.parametrize('change', [None, (ABOUT, 'x'), *FOREIGN_MODELS])
def test_exported_files_that_are_not_ours(folder, tmp_path, change):
    onnx, _ = pytest.importorskip('onnx.parser'), pytest.importorskip('onnxruntime')
    text = read_data('foreign.onnx.txt')
    text, about = (original.replace(*change or ('', '')) for original in (text, ABOUT))
    model = onnx.parse_model(text)
    model.metadata_props.add(key='stmixer_mm', value=about)
    path = tmp_path / 'other.onnx'
    sample = ActionDataSample()
    clip = torch.zeros(3, 2, 32, 43, dtype=torch.uint8)

    def read(path):
        detector = init_detector(folder / 'tiny.py', path)
        return detector.test_step(dict(inputs=[clip], data_samples=[sample]))

    if change is None:
        path.write_bytes(model.SerializeToString())
        assert len(read(path)) == 1
    else:
        check_content(path, model.SerializeToString(), read)
