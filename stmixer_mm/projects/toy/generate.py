"""Make the toy dataset: annotated scripts, videos, keyframes, tracks and tubes."""

import argparse
import os
import pickle
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Annotated, Literal, NamedTuple

import cv2
import numpy as np
from mmengine.utils import track_iter_progress

from stmixer_mm.command_line import Seed, number
from stmixer_mm.datasets.annotations.label_map import format_label_map
from stmixer_mm.errors import UserError
from stmixer_mm.pictures import encode
from stmixer_mm.projects.common.ava_writer import (
    AnnotatedPerson,
    write_annotations,
)
from stmixer_mm.projects.common.masks import collect_masks, mask_file, write_masks
from stmixer_mm.projects.toy import crowd, memory, script
from stmixer_mm.projects.toy.drawing import Located, locate, render, view_at

FPS = 15
TRACK_STEP = 3  # frames from one keyframe of the tracks to the next
# A person of whom at least CLEAR is visible is annotated, one below HIDDEN is not;
# scripts with anything in between at a keyframe are thrown away.
CLEAR, HIDDEN = 0.5, 0.1
SPLITS = ('train', 'val')
STORIES = {'moments': script, 'memory': memory, 'crowd': crowd}
_ENDS = '.csv', '_empty.csv', '_masks.json', '_tracks.csv', '_tracks_empty.csv'
FILES = (
    *('videos', 'action_list.pbtxt', 'tubes.pkl'),
    *(split + end for split in SPLITS for end in _ENDS),
)

Size = tuple[int, int]  # width and height in pixels
Moments = dict[float, list[AnnotatedPerson]]  # by second


class ToyVideo(NamedTuple):
    """The annotation of a video: keyframes each second, tracks, tubes by action."""

    name: str
    keyframes: Moments
    tracks: Moments
    # Rows of frame from 1, x1, y1, x2, y2.
    tubes: dict[int, list[list[tuple[float, ...]]]]


def read_size(text: str) -> Size:
    """'192x144' as (192, 144); even sides from 64 to 2048."""
    sides = tuple(map(number(int, 64, 2048), text.split('x')))
    if len(sides) != 2 or any(side % 2 for side in sides):
        raise argparse.ArgumentTypeError(f'{text!r} is not WIDTHxHEIGHT, both even')
    return sides


def make_scene(
    seed: Sequence[int], size: Size, story: ModuleType = script
) -> tuple[script.Scene, Moments]:
    """Draw scenes until one shows a person and can be annotated without doubt."""
    rng = np.random.RandomState(seed)
    while True:
        scene = story.random_scene(rng, size[0] / size[1])
        seconds = range(1, story.DURATION)
        keyframes = {t: _annotate(scene, t, size, story) for t in seconds}
        if None not in keyframes.values() and any(keyframes.values()):
            return scene, keyframes


def _annotate(
    scene: script.Scene, second: int, size: Size, story: ModuleType
) -> list[AnnotatedPerson] | None:
    """Persons at a second; None if visibility or actions are in doubt."""
    located = locate(view_at(scene, second), size)
    is_ambiguous = np.any((located.shares > HIDDEN) & (located.shares < CLEAR))
    if is_ambiguous or story.is_ambiguous(scene, second):
        return None
    return [
        person._replace(mask=encode(located.owners == person.person_id + 1))
        for person in _persons(scene, second, located, size, story)
    ]


def _persons(
    scene: script.Scene, t: float, located: Located, size: Size, story: ModuleType
) -> list[AnnotatedPerson]:
    """The visible persons at time ``t``, as :func:`locate` found them."""
    is_visible = located.shares >= CLEAR
    bboxes_norm = np.clip(located.bboxes / (size + size), 0, 1).round(4)
    actions = story.actions_of(scene, t, is_visible)
    ids = [[story.ACTIONS.index(name) + 1 for name in names] for names in actions]
    people = np.flatnonzero(is_visible).tolist()
    return [AnnotatedPerson(bboxes_norm[i], ids[i], i) for i in people]


def action_tubes(
    frames: Sequence[Sequence[AnnotatedPerson]], size: Size
) -> dict[int, list[list[tuple[float, ...]]]]:
    """A tube for each stretch of frames where a person is visible and does an action.

    Args:
        frames: The persons of each frame of a video.
        size: Width and height.

    Returns:
        By action, counted from 0: tubes of rows of frame from 1, x1, y1, x2, y2 in
        pixels.
    """
    tubes: dict[int, list] = {}
    open_tubes: dict[tuple, list] = {}
    for frame, persons in enumerate(frames, start=1):
        previous_tubes, open_tubes = open_tubes, {}
        for bbox_norm, action_ids, person_id, _ in persons:
            row = (frame, *(np.array(bbox_norm) * (size + size)).round(1).tolist())
            for action in action_ids:
                tube = previous_tubes.get((action, person_id))
                if tube is None:
                    tubes.setdefault(action - 1, []).append(tube := [])
                tube.append(row)
                open_tubes[action, person_id] = tube
    return tubes


def _make_video(
    split: str, index: int, *, seed: int, folder: Path, size: Size, story: str
) -> ToyVideo:
    """Write a video of a split; return its annotation."""
    story_module = STORIES[story]
    scene, keyframes = make_scene(
        [seed, SPLITS.index(split), index], size, story_module
    )
    path = folder / f'{split}_{index:04d}.mp4'
    times = (np.arange(story_module.DURATION * FPS) / FPS).tolist()
    views = [view_at(scene, t) for t in times]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), FPS, size)
    for frame in render(scene, views, size):
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    # OpenCV raises no error when the disk is full.
    count = cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT)
    if count != len(times):
        raise UserError(
            f'{path} has {count:.0f} of {len(times)} frames; check that the disk has '
            'space and that OpenCV can write mp4v video.'
        )
    frames = [
        _persons(scene, t, locate(view, size), size, story_module)
        for t, view in zip(times, views, strict=True)
    ]
    tracks = dict(zip(times[::TRACK_STEP], frames[::TRACK_STEP], strict=True))
    return ToyVideo(path.name, keyframes, tracks, action_tubes(frames, size))


def _write_tubes(
    file: Path, videos: Mapping[str, Sequence[ToyVideo]], size: Size, story: ModuleType
) -> None:
    """Tubes in the published form; the validation videos are the test videos."""
    train, test = ([video.name for video in videos[split]] for split in SPLITS)
    names = train + test
    content = dict(
        labels=list(story.ACTIONS),
        train_videos=[train],
        test_videos=[test],
        nframes=dict.fromkeys(names, story.DURATION * FPS),
        resolution=dict.fromkeys(names, size[::-1]),
        gttubes={
            video.name: {
                action: [np.array(tube, np.float32) for tube in group]
                for action, group in sorted(video.tubes.items())
            }
            for split in SPLITS
            for video in videos[split]
        },
    )
    file.write_bytes(pickle.dumps(content, protocol=2))


def make_toy_dataset(
    *,
    out: str = 'data/toy',
    train_videos: Annotated[int, number(int, 1, 9999)] = 700,
    val_videos: Annotated[int, number(int, 1, 9999)] = 100,
    seed: Seed = 0,
    size: Annotated[Size, dict(type=read_size, nargs=None)] = (192, 144),
    story: Literal[tuple(STORIES)] = 'moments',
    workers: Annotated[int, number(int, 0, 64)] = 2,
    force: bool = False,
) -> None:
    """Make the toy dataset: short annotated videos of drawn people.

    In AVA's format ``train.csv`` and ``val.csv`` have a keyframe every second, and
    ``…_tracks.csv`` five, each with a ``…_empty.csv`` of person-free keyframes.
    ``…_masks.json`` have the visible part of each person once a second. ``tubes.pkl``,
    in the form of UCF101-24, has a tube for each stretch of an action; its test videos
    are those of ``val.csv``. The same seed and size give the same data.

    Args:
        out: Folder to make; it appears only when all is done.
        train_videos, val_videos: Numbers of videos.
        seed: Decides everything.
        size: WIDTHxHEIGHT in pixels, even, from 64 to 2048.
        story: 'memory' adds two actions that show only in what was before a clip, in
            videos of 12 seconds instead of 6; 'crowd' has 3 to 9 small persons, 40 to
            90 pixels high in frames of 768x576, who walk in all directions and cross.
        workers: Processes, which a script without a ``__main__`` guard cannot start; 0
            works in the calling process.
        force: Replace a toy dataset that is already there.

    Raises:
        UserError: the folder is in use or a video cannot be written.
    """
    out, size = Path(out).resolve(), tuple(size)
    _check_target(out, force)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Forking a process whose libraries have threads of their own can hang.
    pool = ProcessPoolExecutor(workers, get_context('spawn')) if workers else None
    with TemporaryDirectory(dir=out.parent) as temporary, ExitStack() as at_end:
        if pool:  # if stopped half-way, it must not make the rest
            at_end.callback(pool.shutdown, cancel_futures=True)
        folder = Path(temporary) / 'toy'
        (folder / 'videos').mkdir(parents=True)
        options = dict(seed=seed, folder=folder / 'videos', size=size, story=story)
        videos = {}
        for split, count in zip(SPLITS, (train_videos, val_videos), strict=True):
            finished_videos = (pool.map if pool else map)(
                partial(_make_video, split, **options), range(count)
            )
            videos[split] = list(track_iter_progress((finished_videos, count)))
            _write_split(folder / f'{split}.csv', videos[split], size)
        _write_tubes(folder / 'tubes.pkl', videos, size, STORIES[story])
        ids = {
            name: number for number, name in enumerate(STORIES[story].ACTIONS, start=1)
        }
        (folder / 'action_list.pbtxt').write_text(format_label_map(ids))
        shutil.rmtree(out, ignore_errors=True)
        os.replace(folder, out)
    print(f'\nThe toy dataset is in {out}.')


def _write_split(ann_file: Path, videos: Sequence[ToyVideo], size: Size) -> None:
    keyframes = {
        (v.name, time): persons for v in videos for time, persons in v.keyframes.items()
    }
    tracks = {
        (v.name, time): persons for v in videos for time, persons in v.tracks.items()
    }
    write_annotations(ann_file, keyframes)
    write_annotations(ann_file.with_stem(f'{ann_file.stem}_tracks'), tracks)
    sizes = {video.name: size[::-1] for video in videos}
    write_masks(mask_file(ann_file), collect_masks(keyframes, sizes))


def _check_target(out: Path, force: bool) -> None:
    """Only a toy dataset may be replaced."""
    entries = {entry.name for entry in out.iterdir()} if out.exists() else set()
    foreign = entries - {*FILES}
    if foreign or (entries and not force):
        raise UserError(
            f'{out} already contains {min(foreign or entries)}; name another folder, or '
            'replace a toy dataset, and nothing but one, with --force (force=True).'
        )
