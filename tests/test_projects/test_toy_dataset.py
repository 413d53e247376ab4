"""Laws of the toy dataset's files."""

from itertools import chain

import numpy as np
import pytest
from run_tool import run_and_fail, run_tool

from stmixer_mm.datasets.annotations.ava_csv import (
    read_keyframe_rows,
    read_label_names,
    read_timestamp_keys,
)
from stmixer_mm.datasets.annotations.tube_annotations import read_tube_annotations
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.projects.toy import generate
from stmixer_mm.projects.toy.drawing import render, view_at
from stmixer_mm.projects.toy.generate import FILES, FPS, make_scene, make_toy_dataset
from stmixer_mm.projects.toy.script import ACTIONS

SIZE = (96, 72)
SMALL = {'train_videos': 3, 'val_videos': 2, 'size': SIZE, 'workers': 0}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob('*.*')}


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    out = tmp_path_factory.mktemp('toy') / 'deep' / 'toy'
    make_toy_dataset(out=out, **SMALL)
    return out


def test_each_keyframe_is_annotated_or_empty(toy):
    assert {path.name for path in toy.iterdir()} == {*FILES}
    names = read_label_names(str(toy / 'action_list.pbtxt'))
    assert names == dict(enumerate(ACTIONS, start=1))
    for split, count in (('train', 3), ('val', 2)):
        rows, _ = read_keyframe_rows(str(toy / f'{split}.csv'), num_classes=9)
        videos = [f'{split}_{index:04d}.mp4' for index in range(count)]
        assert sorted({row.video_id for row in rows}) == videos
        keys = {f'{name},{second:04d}' for name in videos for second in range(1, 6)}
        empty = read_timestamp_keys(str(toy / f'{split}_empty.csv'))
        assert keys - {row.key for row in rows} == empty


def test_videos_are_the_drawn_frames(toy):
    scene, keyframes = make_scene([0, 0, 1], SIZE)
    path = toy / 'videos' / 'train_0001.mp4'
    reader = open_video(path)
    assert (len(reader), reader.fps) == (6 * FPS, pytest.approx(FPS))
    frames = np.array(reader.get_batch(range(6 * FPS)))
    views = [view_at(scene, number / FPS) for number in range(6 * FPS)]
    drawn = np.array(list(render(scene, views, SIZE)))
    assert np.abs(frames.astype(int) - drawn).mean(axis=(1, 2, 3)).max() < 8
    rows, _ = read_keyframe_rows(str(toy / 'train.csv'))
    written = [row[2:] for row in rows if row.video_id == path.name]
    assert written == [
        (second, tuple(bbox_norm), action, person)
        for second, people in keyframes.items()
        for bbox_norm, actions, person, _ in people
        for action in actions
    ]


def test_tracks_and_tubes_say_the_same_as_keyframes(toy):
    truth = read_tube_annotations(toy / 'tubes.pkl')
    assert truth.labels == ACTIONS
    videos = dict(train=truth.train_videos[0], val=truth.test_videos[0])
    for split, names in videos.items():
        of_tubes = {
            (name, int(row[0]), label + 1, *row[1:])
            for name in names
            for label, tubes in truth.gttubes[name].items()
            for row in chain(*tubes)
        }
        rows, _ = read_keyframe_rows(str(toy / f'{split}_tracks.csv'))
        empty = read_timestamp_keys(str(toy / f'{split}_tracks_empty.csv'))
        assert len({row.key for row in rows} | empty) == 30 * len(names)
        of_tracks = {
            (
                *(row.video_id, round(row.timestamp * FPS) + 1, row.action_id),
                *np.multiply(row.bbox_norm, SIZE + SIZE).round(),
            )
            for row in rows
        }
        assert of_tracks == {row for row in of_tubes if row[1] % 3 == 1}
        keyframes, _ = read_keyframe_rows(str(toy / f'{split}.csv'))
        seconds = {row[1:] for row in rows if row.timestamp in range(1, 6)}
        assert {row[1:] for row in keyframes} == seconds


def test_same_seed_same_data_whatever_the_workers_and_the_number(toy, tmp_path):
    more, other = tmp_path / 'more', tmp_path / 'other'
    make_toy_dataset(out=more, **{**SMALL, 'train_videos': 4, 'workers': 1})
    make_toy_dataset(out=other, **SMALL, seed=1)
    first, more, other = map(contents, (toy, more, other))
    for name in first.keys() - {'train_masks.json', 'tubes.pkl'}:
        assert more[name].startswith(first[name])
    for name in ('train_0000.mp4', 'train.csv'):
        assert other[name] != first[name]


def test_the_tool_overwrites_a_toy_dataset_only_if_told_and_whole(
    tmp_path, capsys, monkeypatch
):
    out = tmp_path / 'toy'
    out.mkdir()  # an empty folder is free
    options = ['--out', out, '--size', '96x72', '--workers', 0]
    options += ['--train-videos', 1, '--val-videos', 1]
    run_tool('make_toy_dataset', *options)
    assert f'The toy dataset is in {out}.' in capsys.readouterr().out
    original = contents(out)
    options += ['--seed', 1]
    for place, force in ((out, []), (out / 'val.csv', ['--force'])):
        run_and_fail(capsys, 'make_toy_dataset', *options, '--out', place, *force)
        assert contents(out) == original
    with monkeypatch.context() as patch:  # the disk is full after half of the frames
        patch.setattr(generate, 'render', lambda *_: list(render(*_))[:45])
        line = run_and_fail(capsys, 'make_toy_dataset', *options, '--force')
        assert 'train_0000.mp4 has 45 of 90 frames' in line
    assert contents(out) == original
    run_tool('make_toy_dataset', *options, '--force')
    assert contents(out) != original
    assert [path.name for path in tmp_path.iterdir()] == ['toy']
