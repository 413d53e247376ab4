"""Ground-truth tubes as UCF101-24, JHMDB and MultiSports publish them.

The file is a pickle of a dict that the scripts of the action tubelet detector
(Kalogeiton et al., ICCV 2017) defined: ``labels``, ``train_videos`` and
``test_videos`` (a list for each split), ``nframes``, ``resolution`` (h, w) and
``gttubes`` (video -> label number from 0 -> arrays (n, 5) of frame, x1, y1, x2, y2;
frames from 1, boxes in pixels).

The pickle is read as :mod:`.plain_pickle` does, without running code of its own.
"""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from reprlib import repr as shorten
from typing import Any, NamedTuple

import numpy as np

from stmixer_mm.errors import UserError, blame
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
    picture or have no area, frames beyond ``nframes`` (UCF101-24 has such tubes),
    videos without a tube, and videos that no split names.

    Raises:
        UserError: with the file, the place in it, and what to do.
    """
    content = read_plain_pickle(file, kind='a pickle of tubes', remedy=_REMEDY)

    def read(key: str, convert: Callable[[Any], Any]) -> Any:
        with blame(f'{file}: {key!r} is not as it is published', _REMEDY):
            return convert(content[key])

    labels = read('labels', _labels)
    truth = TubeAnnotations(
        labels,
        *(
            read(key, lambda splits: tuple(map(_names, _list(splits))))
            for key in ('train_videos', 'test_videos')
        ),
        nframes=read('nframes', lambda videos: _each(videos, _count)),
        resolution=read('resolution', lambda videos: _each(videos, _size)),
        gttubes=read(
            'gttubes',
            lambda videos: _each(videos, lambda tubes: _tubes(tubes, len(labels))),
        ),
    )
    tubes = [
        tube for video in truth.gttubes.values() for tube in chain(*video.values())
    ]
    if 0 < max((np.abs(tube[:, 1:]).max() for tube in tubes), default=0) <= 1:
        raise UserError(
            f"{file}: all boxes of 'gttubes' lie within one pixel; multiply them by "
            'width and height, if they are in [0, 1].'
        )
    named = {*truth.gttubes, *chain(*truth.train_videos), *chain(*truth.test_videos)}
    for key in ('nframes', 'resolution', 'gttubes'):
        for name in sorted(named - getattr(truth, key).keys()):
            raise UserError(
                f'{file}: {key!r} lacks the video {name}; add it there, or remove it '
                "from the splits and 'gttubes'."
            )
    return truth


def _each(videos: dict, convert: Callable[[Any], Any]) -> dict[str, Any]:
    """The converted value of each video."""
    found = {}
    for name, value in zip(_names(list(videos)), videos.values(), strict=True):
        try:
            found[name] = convert(value)
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f'video {name}: {error}') from error
    return found


def _list(values: Any) -> list | tuple:
    """A list, of an array too, but not of text."""
    if isinstance(values, np.ndarray):
        return values.tolist()
    if not isinstance(values, list | tuple):
        raise TypeError(f'it is of type {type(values).__name__}')
    return values


def _names(values: Any) -> tuple[str, ...]:
    for name in _list(values):
        if not isinstance(name, str) or not name:
            raise ValueError(f'it has the name {shorten(name)}')
    return tuple(_list(values))


def _labels(values: Any) -> tuple[str, ...]:
    labels = _names(values)
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f'it is {list(labels)}, which are not different names')
    return labels


def _count(value: float) -> int:
    if not value >= 1 or value % 1:
        raise ValueError(f'it is {value}, which is not a whole number from 1 upwards')
    return int(value)


def _size(value: Any) -> tuple[int, int]:
    height, width = map(_count, value)
    return height, width


def _tubes(classes: dict, num_labels: int) -> dict[int, list[np.ndarray]]:
    found: dict[int, list] = {}
    for label, tubes in classes.items():
        if label not in range(num_labels):
            raise ValueError(f'it has the label {shorten(label)}')
        found[int(label)] = []
        for number, tube in enumerate(_list(tubes)):
            try:
                found[int(label)].append(check_tube(tube))
            except ValueError as error:
                raise ValueError(f'label {label}, tube {number}: {error}') from error
    return found


def check_tube(value: Any) -> np.ndarray:
    """A tube (n, 5) in 64 bits: rising whole frames from 1, x1, y1, x2, y2.

    Raises:
        ValueError: it is something else.
    """
    tube = np.asarray(value)
    if tube.dtype.kind not in 'iuf' or tube.shape[1:] != (5,) or not len(tube):
        raise ValueError(f'it has the shape {tube.shape} and the type {tube.dtype}')
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
        first = np.flatnonzero(~is_right)[0]
        before = f' after frame {frames[first - 1]:g}' if first else ''
        raise ValueError(f'it has the row {tube[first].tolist()}{before}')
    return tube
