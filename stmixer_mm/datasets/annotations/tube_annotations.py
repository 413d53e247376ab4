"""Ground-truth tubes as UCF101-24, JHMDB and MultiSports publish them.

The file is a pickle of a dict that the scripts of the action tubelet detector
(Kalogeiton et al., ICCV 2017) defined: ``labels``, ``train_videos`` and
``test_videos`` (a list for each split), ``nframes``, ``resolution`` (h, w) and
``gttubes`` (video -> label number from 0 -> arrays (n, 5) of frame, x1, y1, x2, y2;
frames from 1, boxes in pixels).

The pickle is read as :mod:`.plain_pickle` does, without running code of its own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import repr as shorten
from typing import Any, NamedTuple

import numpy as np

from stmixer_mm.errors import UserError, blame
from stmixer_mm.plain_pickle import read_plain_pickle


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

    Raises:
        UserError: with the file, what is wrong in it, and what to do.
    """
    content = read_plain_pickle(
        file, kind='a pickle of tubes', remedy='download it again'
    )
    return check_tube_annotations(content, source=str(file))


def check_tube_annotations(content: Any, *, source: str) -> TubeAnnotations:
    """Ground truth of a dict in the published form.

    Accepted on purpose: tubes with gaps or of one frame, boxes that leave the
    picture or have no area, frames beyond ``nframes`` (UCF101-24 has such tubes),
    videos without a tube, and videos that no split names.

    Args:
        content: The dict.
        source: Its name in messages.

    Raises:
        UserError: with the source, what is wrong in it, and what to do.
    """
    if isinstance(content, TubeAnnotations):
        return content
    form = f'a dict with the keys {", ".join(TubeAnnotations._fields)}'
    content = _need(content, Mapping, source, form)
    for key in TubeAnnotations._fields:
        _check(key in content, f'{source} lacks the key {key!r}; write {form}.')
    with blame(f'{source} is not in the published form', 'download it again'):
        return _annotations(content, source)


def _annotations(content: Mapping, source: str) -> TubeAnnotations:
    labels = _names(content['labels'], f"{source}: 'labels'")
    _check(
        labels and all(labels),
        f"{source}: 'labels' is empty or has an empty name; list all labels.",
    )
    for name in labels:
        if labels.count(name) > 1:
            raise UserError(
                f"{source}: 'labels' names a label twice, {name!r}; list each once."
            )
    nframes = {
        name: _count(value, f"{source}: 'nframes' of video {name}")
        for name, value in _videos(content, 'nframes', source)
    }
    resolution = {
        name: _size(value, f"{source}: 'resolution' of video {name}")
        for name, value in _videos(content, 'resolution', source)
    }
    gttubes = {
        name: _tubes(value, f'{source}: video {name}', len(labels))
        for name, value in _videos(content, 'gttubes', source)
    }
    tubes = [tube for video in gttubes.values() for t in video.values() for tube in t]
    _check(
        not 0 < max((np.abs(tube[:, 1:]).max() for tube in tubes), default=0) <= 1,
        f"{source}: all boxes of 'gttubes' lie within one pixel; multiply them by "
        'width and height, if they are in [0, 1].',
    )
    splits = {
        key: _splits(content[key], f'{source}: {key!r}')
        for key in ('train_videos', 'test_videos')
    }
    named = dict.fromkeys(gttubes, 'gttubes')
    named |= {name: key for key in splits for split in splits[key] for name in split}
    known = {'nframes': nframes, 'resolution': resolution, 'gttubes': gttubes}
    for key, videos in known.items():
        for name in named:
            if name not in videos:
                raise UserError(
                    f'{source}: {named[name]!r} names the video {name}, which {key!r} '
                    'lacks; add it there or remove it here.'
                )
    return TubeAnnotations(labels, *splits.values(), **known)


def _check(is_right: object, message: str) -> None:
    if not is_right:
        raise UserError(message)


def _need(value: Any, kind: type, place: str, form: str) -> Any:
    """The value if it is of a type; arrays are as good as lists."""
    if kind is Sequence and isinstance(value, np.ndarray):
        value = value.tolist()
    is_right = isinstance(value, kind) and not isinstance(value, str | bytes)
    _check(is_right, f'{place} is of type {type(value).__name__}; write {form}.')
    return value


def _names(values: Any, place: str) -> tuple[str, ...]:
    values = _need(values, Sequence, place, 'a list of names')
    for name in values:
        if not isinstance(name, str):
            raise UserError(
                f'{place} has the name {shorten(name)} of type {type(name).__name__}; '
                'write names as text.'
            )
    return tuple(values)


def _videos(content: Mapping, key: str, source: str) -> list[tuple[str, Any]]:
    """Names and values of a dict of videos."""
    place = f'{source}: {key!r}'
    videos = _need(content[key], Mapping, place, 'a dict of videos')
    return list(zip(_names(list(videos), place), videos.values(), strict=True))


def _splits(values: Any, place: str) -> tuple[tuple[str, ...], ...]:
    form = 'a list with a list of videos for each split'
    values = _need(values, Sequence, place, form)
    return tuple(
        _names(value, f'{place}, split {i}') for i, value in enumerate(values, 1)
    )


def _count(value: Any, place: str) -> int:
    is_number = isinstance(value, int | float | np.number)
    if not is_number or not value >= 1 or value % 1:
        shown = value if is_number else shorten(value)
        raise UserError(f'{place} is {shown}; write a whole number from 1 upwards.')
    return int(value)


def _size(value: Any, place: str) -> tuple[int, int]:
    form = 'height and width in pixels'
    value = _need(value, Sequence, place, form)
    _check(len(value) == 2, f'{place} is {shorten(value)}; write {form}.')
    height, width = (_count(side, place) for side in value)
    return height, width


def _tubes(classes: Any, place: str, num_labels: int) -> dict[int, list[np.ndarray]]:
    form = 'a dict from labels to lists of arrays'
    found = {}
    for label, arrays in _need(classes, Mapping, place, form).items():
        if label not in range(num_labels):
            raise UserError(
                f'{place} has tubes of label {shorten(label)}; number the '
                f'{num_labels} labels from 0 to {num_labels - 1}.'
            )
        where = f'{place}, label {int(label)}'
        found[int(label)] = [
            _tube(array, f'{where}, tube {i}')
            for i, array in enumerate(_need(arrays, Sequence, where, form))
        ]
    return found


def _tube(value: Any, place: str) -> np.ndarray:
    form = 'write numbers of shape (n, 5), rows of frame, x1, y1, x2, y2'
    with blame(f'{place} is not an array of numbers', form):
        tube = np.asarray(value)
    _check(
        tube.dtype.kind in 'iuf' and tube.shape[1:] == (5,),
        f'{place} has the shape {tube.shape} and the type {tube.dtype}; {form}.',
    )
    _check(len(tube), f'{place} has no row; remove it.')
    tube = tube.astype(np.float64)
    frames, low, high = tube[:, 0], tube[:, 1:3], tube[:, 3:]
    with np.errstate(invalid='ignore'):
        steps = np.diff(frames, prepend=0)
    for faulty, fault in (
        (
            ~np.isfinite(tube).all(axis=1),
            'has a number that is not finite in frame {0:g}; correct or remove the row.',
        ),
        (
            (frames != np.round(frames)) | (frames < 1),
            'has the frame {0:g}; count frames in whole numbers from 1 upwards.',
        ),
        (
            steps <= 0,
            'goes from frame {5:g} to {0:g}; sort its rows and keep one for each frame.',
        ),
        (
            (low > high).any(axis=1),
            'has the box ({1:g}, {2:g}, {3:g}, {4:g}) in frame {0:g}, which is upside '
            'down; write it as x1, y1, x2, y2.',
        ),
    ):
        if faulty.any():
            first = np.flatnonzero(faulty)[0]
            raise UserError(
                f'{place} {fault.format(*tube[first], frames[first] - steps[first])}'
            )
    return tube
