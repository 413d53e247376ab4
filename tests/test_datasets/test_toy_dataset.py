"""Laws of the toy dataset's files."""

import importlib.util
from collections import Counter
from pathlib import Path

import cv2
import decord
import numpy as np
import pytest
from mmaction.evaluation.functional.ava_utils import read_csv, read_labelmap

from stmixer_mm.datasets.toy import ACTIONS, generate, make_toy_dataset
from stmixer_mm.datasets.toy.drawing import render
from stmixer_mm.datasets.toy.generate import FPS, make_scene

SIZE = (96, 72)
SMALL = {'train_videos': 3, 'val_videos': 2, 'size': SIZE, 'workers': 0}


def _frames(path):
    reader = decord.VideoReader(str(path))
    return reader.get_batch(range(len(reader))).asnumpy(), reader.get_avg_fps()


def _contents(folder):
    return {path.name: path.read_text() for path in folder.glob('*.*')}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp('toy') / 'deep' / 'toy'
    make_toy_dataset(out, **SMALL)
    return out


def test_files_are_what_the_host_reads(made):
    assert {path.name for path in made.iterdir()} == {
        'videos',
        'train.csv',
        'train_empty.csv',
        'val.csv',
        'val_empty.csv',
        'action_list.pbtxt',
    }
    with open(made / 'action_list.pbtxt') as file:
        labels, ids = read_labelmap(file)
    assert [label['name'] for label in labels] == list(ACTIONS)
    assert ids == set(range(1, len(ACTIONS) + 1))
    for split, count in (('train', 3), ('val', 2)):
        with open(made / f'{split}.csv') as file:
            boxes, actions, _ = read_csv(file, ids)
        empty = (made / f'{split}_empty.csv').read_text().splitlines()
        names = {key.split(',')[0] for key in boxes}
        assert names == {f'{split}_{i:04d}.mp4' for i in range(count)}
        assert all((made / 'videos' / name).is_file() for name in names)
        keys = {f'{name},{second:04d}' for name in names for second in range(1, 6)}
        assert set(boxes) | set(empty) == keys and not set(boxes) & set(empty)
        assert all(set(ids_of_key) <= ids for ids_of_key in actions.values())
        rows = (made / f'{split}.csv').read_text().splitlines()
        assert max(Counter(rows).values()) == 1


def test_videos_are_the_drawn_frames(made):
    scene, rows = make_scene([0, 0, 1], SIZE)
    path = made / 'videos' / 'train_0001.mp4'
    frames, fps = _frames(path)
    assert fps == pytest.approx(FPS) and frames.shape == (6 * FPS, SIZE[1], SIZE[0], 3)
    drawn = np.array(list(render(scene, np.arange(6 * FPS) / FPS, SIZE)))
    error = np.abs(frames.astype(int) - drawn).mean(axis=(1, 2, 3))
    assert error.max() < 8
    # Reading frames one by one in any order gives the same frames.
    reader = decord.VideoReader(str(path))
    for index in (75, 7, 82, 0, 89):
        np.testing.assert_array_equal(reader[index].asnumpy(), frames[index])
    text = [line for line in (made / 'train.csv').open() if 'train_0001' in line]
    assert len(text) == len(rows)
    for line, (second, bbox, action, person) in zip(text, rows, strict=True):
        fields = line.rstrip().split(',')
        assert fields[1] == f'{second:04d}'
        np.testing.assert_allclose(np.float64(fields[2:6]), bbox, atol=5.1e-5)
        assert fields[6:] == [str(action), str(person)]


def test_same_seed_same_data_whatever_the_workers(made, tmp_path):
    make_toy_dataset(tmp_path / 'two', **{**SMALL, 'workers': 2})
    assert _contents(tmp_path / 'two') == _contents(made)
    for path in sorted((made / 'videos').iterdir()):
        twin = _frames(tmp_path / 'two' / 'videos' / path.name)[0]
        np.testing.assert_array_equal(_frames(path)[0], twin)


def test_seeds_differ_and_more_videos_keep_the_first(made, tmp_path):
    make_toy_dataset(tmp_path / 'other', **{**SMALL, 'seed': 1})
    other, first = _contents(tmp_path / 'other'), _contents(made)
    assert other['train.csv'] != first['train.csv']
    make_toy_dataset(tmp_path / 'more', **{**SMALL, 'train_videos': 4})
    more = _contents(tmp_path / 'more')
    assert more['train.csv'].startswith(first['train.csv'])
    assert len(more['train.csv']) > len(first['train.csv'])
    assert more['val.csv'] == first['val.csv']


@pytest.mark.parametrize(
    ('wrong', 'words'),
    [
        ({'train_videos': 0}, 'train_videos is 0'),
        ({'val_videos': 10000}, 'val_videos is 10000'),
        ({'seed': -1}, 'seed is -1'),
        ({'workers': -1}, 'workers is -1'),
        ({'size': (97, 72)}, 'size is 97x72'),
        ({'size': (32, 32)}, 'size is 32x32'),
        ({'size': (512, 64)}, 'size is 512x64'),
    ],
)
def test_bad_arguments_are_refused(wrong, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        make_toy_dataset(tmp_path / 'toy', **{**SMALL, **wrong})
    assert not any(tmp_path.iterdir())


def test_nothing_is_overwritten_unasked(tmp_path):
    out = tmp_path / 'toy'
    tiny = {**SMALL, 'train_videos': 1, 'val_videos': 1}
    out.mkdir()
    make_toy_dataset(out, **tiny)  # an empty folder is free
    before = _contents(out)
    with pytest.raises(FileExistsError, match='not empty'):
        make_toy_dataset(out, **tiny, seed=1)
    assert _contents(out) == before
    make_toy_dataset(out, **tiny, seed=1, force=True)
    assert _contents(out) != before
    (out / 'thesis.txt').write_text('years of work')
    with pytest.raises(FileExistsError, match=r'thesis\.txt'):
        make_toy_dataset(out, **tiny, force=True)
    with pytest.raises(FileExistsError, match='is a file'):
        make_toy_dataset(out / 'thesis.txt', **tiny, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ['toy']


def test_failure_leaves_what_was_there(tmp_path, monkeypatch):
    out = tmp_path / 'toy'
    tiny = {**SMALL, 'train_videos': 1, 'val_videos': 1}
    make_toy_dataset(out, **tiny)
    before = _contents(out)

    class LosesFrames:
        def __init__(self, *args):
            self.writer = writer_class(*args)

        def write(self, frame):
            if self.writer is not None:
                self.writer.write(frame)

        def release(self):
            self.writer.release()
            path = next(tmp_path.rglob('.toy.partial/videos/*.mp4'))
            path.write_bytes(path.read_bytes()[:2000])

    writer_class = cv2.VideoWriter
    monkeypatch.setattr(generate.cv2, 'VideoWriter', LosesFrames)
    with pytest.raises(RuntimeError, match=r'train_0000\.mp4 holds 0 of 90 frames'):
        make_toy_dataset(out, **tiny, force=True)
    assert _contents(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ['toy']


@pytest.fixture(scope='module')
def tool():
    path = Path(__file__).parents[2] / 'tools' / 'make_toy_dataset.py'
    spec = importlib.util.spec_from_file_location('make_toy_dataset_tool', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tool_makes_what_the_function_makes(tool, made, tmp_path, capsys):
    out = tmp_path / 'toy'
    numbers = ['--train-videos', '3', '--val-videos', '2', '--workers', '0']
    options = [*numbers, '--size', '96x72']
    assert tool.main(['--out', str(out), *options]) == 0
    assert _contents(out) == _contents(made)
    assert str(out) in capsys.readouterr().out
    assert 'not empty' in tool.main(['--out', str(out), *options])


def test_tool_explains_a_bad_size(tool, tmp_path, capsys):
    with pytest.raises(SystemExit):
        tool.main(['--out', str(tmp_path / 'toy'), '--size', 'big'])
    assert "'big' is not WIDTHxHEIGHT" in capsys.readouterr().err
