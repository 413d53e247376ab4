"""Ground-truth tubes as UCF101-24, JHMDB and MultiSports publish them.

The file is a pickle of a dict that the scripts of the action tubelet detector
(Kalogeiton et al., ICCV 2017) defined: ``labels``, ``train_videos`` and
``test_videos`` (a list for each split), ``nframes``, ``resolution`` (h, w) and
``gttubes`` (video -> label number from 0 -> arrays (n, 5) of frame, x1, y1, x2, y2;
frames from 1, boxes in pixels).

The pickle is read as :mod:`.plain_pickle` does, without running code of its own.
"""

from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stmixer_mm.errors import blame
from stmixer_mm.plain_pickle import read_plain_pickle

_REMEDY = 'correct it or download the file again'


class TubeAnnotations(NamedTuple):
    """Ground truth of a dataset, all splits; the names are those of the files."""

    labels: tuple[str, ...]
    train_videos: tuple[tuple[str, ...], ...]
    test_videos: tuple[tuple[str, ...], ...]
    nframes: dict[str, int]
    resolution: dict[str, tuple[int, int]]  # h, w in pixels
    gttubes: dict[str, dict[int, list[np.ndarray]]]  # (n, 5) float64 each


def read_tube_annotations(file: str | Path) -> TubeAnnotations:
    """Read and check a ground-truth pickle, of Python 2 or 3.

    Accepted on purpose: tubes with gaps or of one frame, boxes that leave the
    picture or have no area, frames beyond ``nframes``, videos without a tube, and
    videos that no split names.

    Raises:
        UserError: with the file, the reason, and what to do.
    """
    content = read_plain_pickle(file, kind='a pickle of tubes', remedy=_REMEDY)
    with blame(f'{file} is not as tubes are published', _REMEDY):
        truth = TubeAnnotations(
            labels=_names(content['labels']),
            train_videos=tuple(map(_names, content['train_videos'])),
            test_videos=tuple(map(_names, content['test_videos'])),
            nframes={name: _count(n) for name, n in content['nframes'].items()},
            resolution={
                name: (_count(height), _count(width))
                for name, (height, width) in content['resolution'].items()
            },
            gttubes={
                name: _tubes(name, classes)
                for name, classes in content['gttubes'].items()
            },
        )
        _check(truth)
    return truth


def _names(values: Iterable[str]) -> tuple[str, ...]:
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f'{value!r} is no name')
    return tuple(map(str, values))  # numpy's text has a class of its own


def _count(value: float) -> int:
    if not value >= 1 or value % 1:
        raise ValueError(f'{value} is not a whole number from 1 upwards')
    return int(value)


def _tubes(video: str, classes: Mapping[int, Any]) -> dict[int, list[np.ndarray]]:
    try:
        return {
            int(label): [check_tube(tube) for tube in tubes]
            for label, tubes in classes.items()
        }
    except ValueError as error:
        raise ValueError(f'gttubes of {video}: {error}') from error


def _check(truth: TubeAnnotations) -> None:
    """Raise ``ValueError`` unless the parts agree, and boxes are in pixels."""
    if not truth.labels or len(set(truth.labels)) < len(truth.labels):
        raise ValueError(f'labels are {truth.labels}, not different names')
    named = {*truth.gttubes, *chain(*truth.train_videos), *chain(*truth.test_videos)}
    for key in ('nframes', 'resolution', 'gttubes'):
        if missing := named - getattr(truth, key).keys():
            raise ValueError(f'{key} lacks the video {min(missing)}')
    labels = set(chain(*truth.gttubes.values()))
    if not labels <= set(range(len(truth.labels))):
        raise ValueError(f'gttubes have labels {sorted(labels)} of {truth.labels}')
    tubes = chain(*(chain(*by_label.values()) for by_label in truth.gttubes.values()))
    if 0 < max((np.abs(tube[:, 1:]).max() for tube in tubes), default=0) <= 1:
        raise ValueError('boxes lie within one pixel, as if they were in [0, 1]')


def check_tube(value: Any) -> np.ndarray:
    """A tube (n, 5) in 64 bits: rising whole frames from 1, x1, y1, x2, y2.

    Raises:
        ValueError: it is something else.
    """
    tube = np.asarray(value)
    if tube.dtype.kind not in 'iuf' or tube.shape[1:] != (5,) or not len(tube):
        raise ValueError(f'a tube has the shape {tube.shape} and type {tube.dtype}')
    tube = tube.astype(np.float64)
    frames, low, high = tube[:, 0], tube[:, 1:3], tube[:, 3:]
    with np.errstate(invalid='ignore'):
        is_right = (
            np.isfinite(tube).all(axis=1)
            & (np.diff(frames, prepend=0) > 0)
            & (frames % 1 == 0)
            & (low <= high).all(axis=1)
        )
    if not is_right.all():
        raise ValueError(f'a tube has the row {tube[is_right.argmin()].tolist()}')
    return tube
