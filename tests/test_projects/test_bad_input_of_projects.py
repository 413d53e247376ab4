"""Bad input to the tools and parts of the projects: data/bad_input_of_projects.txt."""

import pickle

import numpy as np
import pytest
import torch
from bad_input import NO_PICKLE, check_content, check_row, read_table, write_files
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
MODEL = """<ir_version: 10, opset_import: ["" : 20]>
detector (uint8[1,3,2,32,43] clips) => (
    float[1,4] person_scores, float[1,4,2] action_scores, float[1,4,4] bboxes,
    float[1,4,16] query_vectors
) <
    int64[2] p = {1, 4}, int64[3] a = {1, 4, 2}, int64[3] b = {1, 4, 4},
    int64[3] v = {1, 4, 16}, int64[3] huge = {1024, 1024, 1024},
    int64 long = {1000000000000}, bool true = {1}
> {
    numbers = Cast <to = 1> (clips)
    x = ReduceMean <keepdims = 0> (numbers)
    y = Identity (x)
    value = Sigmoid (y)
    person_scores = Expand (value, p)
    action_scores = Expand (value, a)
    bboxes = Expand (value, b)
    query_vectors = Expand (value, v)
}"""
FOREIGN_MODELS = [  # (old, new) text of the model or its description
    (ABOUT, 'x'),
    ('"batch": 1', '"batch": true'),
    ('"walk"', '1'),
    ('"walk"', r'"\u001b[2J"'),
    ('"walk"', '"walk", "run"'),
    ('"tubelets": false', '"tubelets": true'),
    ('32,', '64,'),
    ('clips', 'frames'),
    ('uint8[', 'float['),
    ('[1,3,2,32,43]', '[3,2,32,43]'),
    (' <to = 1> (clips)', ' <to = 1> (clips) z = Gather (p, long)'),
    ('[1,4,16] query_vectors', '[1,4,16] q'),
    (',\n    float[1,4,16] query_vectors', ''),
    ('[1,4,4] bboxes', '[4,4] bboxes'),
    ('Identity (x)', 'Reshape (x, a)'),
    ('query_vectors = Expand (value, v)', 'z = Log (x) query_vectors = Expand (z, v)'),
    ('y = Identity (x)', 'z = Sub (x, x) y = Div (z, z)'),
    ('value = Sigmoid (y)', 'z = Exp (y) value = Add (z, z)'),
    ('Identity (x)', 'Expand (x, huge)'),
    ('y = Identity (x)', 'z = Expand (x, huge) y = ReduceMean <keepdims = 0> (z)'),
    (
        'Identity (x)',
        """Loop <body = step (int64 i, bool c, float s) => (bool d, float t) {
            d = Identity (c) t = Identity (s)
        }> (long, true, x)""",
    ),
]


@pytest.mark.parametrize('change', [None, *FOREIGN_MODELS])
def test_exported_files_that_are_not_ours(folder, tmp_path, change):
    onnx, _ = pytest.importorskip('onnx.parser'), pytest.importorskip('onnxruntime')
    text, about = (each.replace(*change or ('', '')) for each in (MODEL, ABOUT))
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
