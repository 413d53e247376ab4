"""Making the toy dataset: annotated scripts, videos, files in AVA's format."""

import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from mmengine.utils import ProgressBar

from stmixer_mm.datasets.toy.drawing import locate, render
from stmixer_mm.datasets.toy.script import (
    ACTIONS,
    CLEAR,
    DURATION,
    HIDDEN,
    KEYFRAMES,
    actions_of,
    has_passing,
    random_scene,
)
from stmixer_mm.errors import UserError

FPS = 15
SPLITS = ('train', 'val')
_FILES = {'videos', 'action_list.pbtxt'}
_FILES |= {f'{split}{kind}.csv' for split in SPLITS for kind in ('', '_empty')}


def make_scene(seed, size):
    """Draws scenes until one can be annotated without doubt at each keyframe.

    Args:
        seed (Sequence[int]): decides everything.
        size (tuple[int, int]): width and height in pixels.

    Returns:
        tuple: the scene, and its rows ``(second, bbox_norm (4,), action id, person)``.
    """
    rng = np.random.RandomState(seed)
    while True:
        scene = random_scene(rng, size[0] / size[1])
        rows = _annotate(scene, size)
        if rows is not None:
            return scene, rows


def _annotate(scene, size):
    """The rows of a scene; None if it has none or one that is a matter of opinion."""
    rows = []
    for second in KEYFRAMES:
        bboxes, shares = locate(scene, second, size)
        if np.any((shares > HIDDEN) & (shares < CLEAR)) or has_passing(scene, second):
            return None
        seen = shares >= CLEAR
        bboxes = np.clip(bboxes / (size + size), 0, 1)
        for i, actions in enumerate(actions_of(scene, second, seen)):
            if seen[i]:
                rows += [(second, bboxes[i], ACTIONS.index(a) + 1, i) for a in actions]
    return rows or None


def write_video(path, frames, size):
    """Writes RGB frames as an mp4 file of ``FPS`` frames a second.

    Raises:
        RuntimeError: if the file cannot be written, or not as a whole.
    """
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), FPS, size)
    count = 0
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        count += 1
    writer.release()
    reader = cv2.VideoCapture(str(path))
    written = int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
    reader.release()
    if written != count:
        raise UserError(
            f'{path} holds {written} of {count} frames after writing: check that the '
            'disk has space and that OpenCV can write mp4v video.'
        )


def _make_video(job, *, seed, folder, size):
    """Makes one video; returns its csv lines and those of its keyframes without people.

    Runs in a worker process.
    """
    split, index = job
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        scene, rows = make_scene([seed, SPLITS.index(split), index], size)
        name = f'{split}_{index:04d}.mp4'
        times = np.arange(DURATION * FPS) / FPS
        write_video(folder / name, render(scene, times, size), size)
    finally:
        cv2.setNumThreads(threads)
    lines = [
        f'{name},{second:04d},{",".join(f"{v:.4f}" for v in bbox)},{action},{person}\n'
        for second, bbox, action, person in rows
    ]
    empty = set(KEYFRAMES) - {row[0] for row in rows}
    return lines, [f'{name},{second:04d}\n' for second in sorted(empty)]


def make_toy_dataset(
    out_dir,
    *,
    train_videos=200,
    val_videos=30,
    seed=0,
    size=(192, 144),
    workers=2,
    force=False,
):
    """Makes little annotated videos of drawn people, in AVA's format.

    Writes ``videos/*.mp4``, ``train.csv``, ``val.csv`` (``video,second,x1,y1,x2,y2,
    action id,person id``, boxes normalised), ``train_empty.csv`` and ``val_empty.csv``
    (``video,second`` of the keyframes that show nobody) and ``action_list.pbtxt``. The
    same seed and size give the same data, whatever the number of workers.

    Args:
        out_dir (str | Path): appears only when all is done.
        size (tuple[int, int]): width and height in pixels, even, 64 to 2048.
        workers (int): processes, which a script without a ``__main__`` guard cannot
            start; 0 works in the caller's.
        force (bool): replace a toy dataset that is already there.

    Raises:
        ValueError: for arguments out of range.
        FileExistsError: if ``out_dir`` is in use.
        RuntimeError: if a video cannot be written.
    """
    out_dir, size = Path(out_dir).resolve(), tuple(size)
    _check(train_videos, val_videos, seed, size, workers)
    _check_target(out_dir, force)
    partial_dir = out_dir.with_name(f'.{out_dir.name}.partial')
    shutil.rmtree(partial_dir, ignore_errors=True)
    (partial_dir / 'videos').mkdir(parents=True)
    counts = dict(zip(SPLITS, (train_videos, val_videos), strict=True))
    jobs = [(split, i) for split, count in counts.items() for i in range(count)]
    make = partial(_make_video, seed=seed, folder=partial_dir / 'videos', size=size)
    try:
        texts = dict.fromkeys(sorted(_FILES - {'videos', 'action_list.pbtxt'}), '')
        for (split, _), made in zip(jobs, _run(make, jobs, workers), strict=True):
            for kind, lines in zip(('', '_empty'), made, strict=True):
                texts[f'{split}{kind}.csv'] += ''.join(lines)
        for name, text in texts.items():
            (partial_dir / name).write_text(text)
        items = (
            f'item {{\n  name: "{name}"\n  id: {i}\n}}\n'
            for i, name in enumerate(ACTIONS, 1)
        )
        (partial_dir / 'action_list.pbtxt').write_text(''.join(items))
        if out_dir.exists():
            old_dir = out_dir.with_name(f'.{out_dir.name}.old')
            shutil.rmtree(old_dir, ignore_errors=True)
            os.replace(out_dir, old_dir)
            os.replace(partial_dir, out_dir)
            shutil.rmtree(old_dir)
        else:
            os.replace(partial_dir, out_dir)
    except BaseException:
        shutil.rmtree(partial_dir, ignore_errors=True)
        raise


def _run(make, jobs, workers):
    """Yields ``make(job)`` in the order of jobs, with a progress bar."""
    bar = ProgressBar(len(jobs))
    # Forking a process whose libraries have threads of their own can hang.
    pool = ProcessPoolExecutor(workers, get_context('spawn')) if workers else None
    try:
        for result in pool.map(make, jobs, chunksize=4) if pool else map(make, jobs):
            yield result
            bar.update()
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)
        print()


def _check(train_videos, val_videos, seed, size, workers):
    counts = {'train_videos': train_videos, 'val_videos': val_videos}
    for name, value in counts.items():
        if not 1 <= value <= 9999:
            raise UserError(f'{name} is {value}: give a number from 1 to 9999.')
    if not 0 <= seed < 2**32:
        raise UserError(f'seed is {seed}: give a number from 0 to 2**32 - 1.')
    if not 0 <= workers <= 64:
        raise UserError(f'workers is {workers}: give a number from 0 to 64.')
    even = all(64 <= side <= 2048 and side % 2 == 0 for side in size)
    if not even or not 0.5 <= size[0] / size[1] <= 3:
        raise UserError(
            f'size is {size[0]}x{size[1]}: give an even width and height from 64 to '
            '2048 whose ratio is between 0.5 and 3.'
        )


def _check_target(out_dir, force):
    if not out_dir.exists():
        return
    if not out_dir.is_dir():
        raise UserError(f'{out_dir} is a file: name a folder to make.')
    entries = {entry.name for entry in out_dir.iterdir()}
    if entries - _FILES:
        raise UserError(
            f'{out_dir} holds {min(entries - _FILES)!r}, which is no part of a toy '
            'dataset: name another folder, so that nothing is lost.'
        )
    if entries and not force:
        raise UserError(
            f'{out_dir} is not empty: ask to overwrite it (--force, force=True) or '
            'name another folder.'
        )
