"""Making the toy dataset: annotated scripts, videos, files in AVA's format."""

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from mmengine.utils import track_iter_progress

from stmixer_mm.datasets.annotations.ava_writer import (
    AnnotatedPerson,
    write_annotations,
)
from stmixer_mm.datasets.annotations.label_map import format_label_map
from stmixer_mm.datasets.toy import script
from stmixer_mm.datasets.toy.drawing import locate, render
from stmixer_mm.errors import UserError

FPS = 15
# A person of whom at least CLEAR is visible is annotated, one below HIDDEN is not;
# scripts with anything in between at a keyframe are thrown away.
CLEAR, HIDDEN = 0.5, 0.1
SPLITS = ('train', 'val')
FILES = {'videos', 'action_list.pbtxt'}
FILES |= {f'{split}{end}.csv' for split in SPLITS for end in ('', '_empty')}

Size = tuple[int, int]  # width and height in pixels
Keyframes = dict[int, list[AnnotatedPerson]]  # by second


def make_scene(seed: Sequence[int], size: Size) -> tuple[script.Scene, Keyframes]:
    """Draw scenes until one shows somebody and can be annotated without doubt."""
    rng = np.random.RandomState(seed)
    while True:
        scene = script.random_scene(rng, size[0] / size[1])
        keyframes = {t: _annotate(scene, t, size) for t in script.KEYFRAMES}
        if None not in keyframes.values() and any(keyframes.values()):
            return scene, keyframes


def _annotate(
    scene: script.Scene, second: int, size: Size
) -> list[AnnotatedPerson] | None:
    """None if it is moot who is seen, or what they do."""
    bboxes, shares = locate(scene, second, size)
    seen = shares >= CLEAR
    actions = script.actions_of(scene, second, seen)
    if actions is None or np.any((shares > HIDDEN) & ~seen):
        return None
    bboxes_norm = np.clip(bboxes / (size + size), 0, 1).round(4)
    ids = [[script.ACTIONS.index(name) + 1 for name in done] for done in actions]
    return [AnnotatedPerson(bboxes_norm[i], ids[i], i) for i in np.flatnonzero(seen)]


def _make_video(
    split: str, index: int, *, seed: int, folder: Path, size: Size
) -> dict[tuple[str, int], list[AnnotatedPerson]]:
    """Write a video of a split; return its keyframes by name and second."""
    scene, keyframes = make_scene([seed, SPLITS.index(split), index], size)
    path = folder / f'{split}_{index:04d}.mp4'
    times = np.arange(script.DURATION * FPS) / FPS
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), FPS, size)
    for frame in render(scene, times, size):
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    # OpenCV says nothing of a full disk.
    count = cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT)
    if count != len(times):
        raise UserError(
            f'{path} has {count:.0f} of {len(times)} frames; check that the disk has '
            'space and that OpenCV can write mp4v video.'
        )
    return {(path.name, second): persons for second, persons in keyframes.items()}


def make_toy_dataset(
    out_dir: str | Path,
    *,
    train_videos: int = 300,
    val_videos: int = 100,
    seed: int = 0,
    size: Size = (192, 144),
    workers: int = 2,
    force: bool = False,
) -> None:
    """Make little annotated videos of drawn people, in AVA's format.

    Writes ``videos/*.mp4``, ``train.csv`` and ``val.csv``, ``train_empty.csv`` and
    ``val_empty.csv`` with the keyframes that show nobody, and ``action_list.pbtxt``. The
    same seed and size give the same data, whatever the number of workers.

    Args:
        out_dir: Appears only when all is done.
        size: Width and height in pixels, even, 64 to 2048.
        workers: Processes, which a script without a ``__main__`` guard cannot start; 0
            works in the caller's.
        force: Replace a toy dataset that is already there.

    Raises:
        UserError: an argument is out of range, ``out_dir`` is in use or a video cannot
            be written.
    """
    out_dir, size = Path(out_dir).resolve(), tuple(size)
    counts = {'train': train_videos, 'val': val_videos}
    _check_numbers(counts, seed, workers, size)
    _check_target(out_dir, force)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    # Forking a process whose libraries have threads of their own can hang.
    pool = ProcessPoolExecutor(workers, get_context('spawn')) if workers else None
    with TemporaryDirectory(dir=out_dir.parent) as temporary, ExitStack() as at_end:
        if pool:  # stopped half-way, it is not to make the rest
            at_end.callback(pool.shutdown, cancel_futures=True)
        folder = Path(temporary) / 'toy'
        (folder / 'videos').mkdir(parents=True)
        make = partial(_make_video, seed=seed, folder=folder / 'videos', size=size)
        run = pool.map if pool else map
        for split, count in counts.items():
            made, keyframes = run(partial(make, split), range(count)), {}
            for one in track_iter_progress((made, count)):
                keyframes |= one
            write_annotations(folder / f'{split}.csv', keyframes)
        ids = {name: number for number, name in enumerate(script.ACTIONS, start=1)}
        (folder / 'action_list.pbtxt').write_text(format_label_map(ids))
        shutil.rmtree(out_dir, ignore_errors=True)
        os.replace(folder, out_dir)


def _check_numbers(counts: dict[str, int], seed: int, workers: int, size: Size) -> None:
    limits = [(f'{split}_videos', count, 1, 9999) for split, count in counts.items()]
    limits += [('seed', seed, 0, 2**32 - 1), ('workers', workers, 0, 64)]
    for name, value, low, high in limits:
        if not low <= value <= high:
            raise UserError(f'{name} is {value}; give a number from {low} to {high}.')
    width, height = size
    even = all(64 <= side <= 2048 and side % 2 == 0 for side in size)
    if not even or not 0.5 <= width / height <= 3:
        raise UserError(
            f'size is {width}x{height}; give an even width and height from 64 to 2048 '
            'whose ratio is between 0.5 and 3.'
        )


def _check_target(out_dir: Path, force: bool) -> None:
    entries = {entry.name for entry in out_dir.iterdir()} if out_dir.exists() else set()
    foreign = entries - FILES
    if foreign or (entries and not force):
        raise UserError(
            f'{out_dir} holds {min(foreign or entries)!r}; name another folder, or '
            'overwrite a toy dataset, and nothing but one, with --force (force=True).'
        )
