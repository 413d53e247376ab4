"""Bad input at every door of the core ends with one sentence that names it."""

import bz2
import pickle

import bad_input
import numpy as np
import pytest
import tiny_tubes
from bad_input import NO_PICKLE, RunsCode, check_content, read_table
from tiny_tubes import NAMES, RUN_2

from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.datasets.tube_dataset import TubeDataset
from stmixer_mm.engine.checkpoints import load_checkpoint_file


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return bad_input.write_files(tmp_path_factory.mktemp('files'))


@pytest.mark.parametrize('row', read_table('bad_input.txt'))
def test_bad_input_to_a_tool(folder, row, monkeypatch, capsys):
    bad_input.check_row(row, folder, monkeypatch, capsys)


def tubes(*rows, label=0):
    return tiny_tubes.truth(**tiny_tubes.gttubes(**{RUN_2: {label: [np.array(rows)]}}))


GOOD = 'a,1,0.1,0.1,0.5,0.9,1,0'
TEXT = f'{GOOD}\nb,1.5,0.1,0.1,0.5,0.9,2,1\n'
NO_TEXT = [TEXT.encode('utf-16'), pickle.dumps([1]), bz2.compress(TEXT.encode())]
LONG = GOOD.replace('0.5', '5' + 'a' * 5000)
CONTENTS = {
    'ann_file': [*NO_TEXT, LONG.encode(), f'{TEXT}é'.encode('latin-1')],
    'exclude_file': [NO_TEXT[0]],
    'empty_keyframes_file': [NO_TEXT[0]],
    'label_file': [*NO_TEXT, b'item { name: "a" id: %s }' % (b'9' * 5000)],
    'tubes': [
        *NO_PICKLE,
        pickle.dumps(tiny_tubes.truth())[:150],
        b'(dVlabels\ncnumpy\nndarray\n(I1000000000000\ntRs.',
        b'cposix\nmkdir\n(Vmade_by_a_pickle\ntR.',
        b'c__builtin__\neval\n(V__import__("os").mkdir("made_by_a_pickle")\ntR.',
        b'cnumpy\nload\n(Vtubes\ntR.',
        {'labels': ['run']},
        tiny_tubes.truth(labels=RunsCode()),
        tiny_tubes.truth(labels=['run', 'run']),
        tiny_tubes.truth(nframes=dict.fromkeys(NAMES, 0)),
        tiny_tubes.truth(resolution=dict.fromkeys(NAMES, 240)),
        tiny_tubes.truth(gttubes={}),
        tiny_tubes.truth(train_videos=[['Run/v_9']], test_videos=[[NAMES[0]]]),
        tubes(),
        tubes([3, 0, 0, 9, 9], label=2),
        tubes([3, 0, np.nan, 9, 9]),
        tubes([1.5, 0, 0, 9, 9]),
        tubes([3, 0, 0, 9, 9], [2, 0, 0, 9, 9]),
        tubes([3, 0.1, 0, 0.9, 1]),
        tubes([2, 9, 4, 4, 9]),
    ],
    'checkpoint': [b'', b'<html>404</html>', *NO_PICKLE, {'a': 1}, [1, 2]],
}
for row in read_table('bad_content.txt'):
    door, _, content = row.partition(' ')
    CONTENTS[door].append(content.replace('\\n', '\n').encode())


@pytest.fixture
def dataset(tmp_path):
    """Config of two keyframes of two videos (empty files)."""
    for name in 'ab':
        (tmp_path / f'{name}.mp4').touch()
    (tmp_path / 'ann_file').write_text(TEXT)
    places = dict(ann_file=str(tmp_path / 'ann_file'), data_root=str(tmp_path))
    return dict(places, num_classes=3, pipeline=[])


@pytest.mark.parametrize(
    ('door', 'content'),
    [(door, content) for door, contents in CONTENTS.items() for content in contents],
)
def test_bad_content_of_a_file(dataset, tmp_path, monkeypatch, door, content):
    def read(path):
        if door == 'checkpoint':
            load_checkpoint_file(path)
        elif door == 'tubes':
            TubeDataset(ann_file=str(path), pipeline=[], test_mode=True)
        else:
            KeyframeDataset(**dataset | {door: str(path)})

    monkeypatch.chdir(tmp_path)
    check_content(tmp_path / door, content, read)


@pytest.mark.parametrize(
    'content',
    [
        TEXT.replace('\n', '\r\n\r\n').encode(),
        TEXT.replace('\n', '\r').encode(),
        b'\xef\xbb\xbf' + TEXT.replace(',', ' , ').encode(),
        TEXT.replace('a,1,', 'a,0001.0,').encode(),
    ],
    ids=['windows', 'mac', 'mark', 'number'],
)
def test_forms_that_are_accepted_change_nothing(dataset, tmp_path, content):
    def persons():
        return [
            (info['img_key'], info['gt_bboxes'].tolist(), info['gt_labels'].tolist())
            for info in KeyframeDataset(**dataset)
        ]

    expected = persons()
    (tmp_path / 'ann_file').write_bytes(content)
    assert persons() == expected
