"""Ground-truth tubes as UCF101-24, JHMDB and MultiSports publish them.

The file is a pickle of a dict that the scripts of the action tubelet detector
(Kalogeiton et al., ICCV 2017) defined: ``labels``, ``train_videos`` and
``test_videos`` (a list for each split), ``nframes``, ``resolution`` (h, w) and
``gttubes`` (video -> label number from 0 -> arrays (n, 5) of frame, x1, y1, x2, y2;
frames from 1, boxes in pixels).

The pickle is read as :mod:`.plain_pickle` does, without running code of its own.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stmixer_mm.plain_pickle import (
    ContentError,
    as_array,
    is_array,
    read_plain_pickle,
    to_plain,
)


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
        OSError: the file is missing, or may not be read.
        ValueError: with the file, what is wrong in it, and what to do.
    """
    return read_plain_pickle(
        file,
        partial(check_tube_annotations, source=str(file)),
        kind='a pickle of tubes',
        remedy='download it again',
    )


def check_tube_annotations(content: Any, *, source: str) -> TubeAnnotations:
    """Ground truth of a dict in the published form.

    Accepted on purpose: tubes with gaps or of one frame, boxes that leave the
    picture or have no area, frames beyond ``nframes`` (UCF101-24 has such tubes),
    videos without a tube, and videos that no split names.

    Args:
        content: The dict.
        source: Its name in messages.

    Raises:
        ValueError: with the source, what is wrong in it, and what to do.
    """
    if isinstance(content, TubeAnnotations):
        return content
    fields = TubeAnnotations._fields
    if not isinstance(content, Mapping):
        raise ContentError(
            f'{source} holds a {type(content).__name__}; write a dict with the keys '
            f'{", ".join(fields)}.'
        )
    missing = [key for key in fields if key not in content]
    if missing:
        raise ContentError(
            f'{source} lacks the key {missing[0]!r}; write the keys '
            f'{", ".join(fields)}, which are text.'
        )
    labels = _texts(content['labels'], f"{source}: 'labels'")
    if not labels or not all(labels):
        raise ContentError(
            f"{source}: 'labels' is empty or has an empty name; list all labels."
        )
    if len(set(labels)) < len(labels):
        twice = next(name for name in labels if labels.count(name) > 1)
        raise ContentError(
            f"{source}: 'labels' names a label twice, {twice!r}; list each once."
        )
    nframes = {
        name: _count(value, f"{source}: 'nframes' of video {name}")
        for name, value in _mapping(content, 'nframes', source).items()
    }
    resolution = {
        name: _size(value, f"{source}: 'resolution' of video {name}")
        for name, value in _mapping(content, 'resolution', source).items()
    }
    tubes = {
        name: _tubes(value, f'{source}: video {name}', len(labels))
        for name, value in _mapping(content, 'gttubes', source).items()
    }
    boxes = [
        tube[:, 1:] for video in tubes.values() for t in video.values() for tube in t
    ]
    if boxes and 0 < max(np.abs(box).max() for box in boxes) <= 1:
        raise ContentError(
            f"{source}: all boxes of 'gttubes' lie within one pixel; multiply them by "
            'width and height, if they are in [0, 1].'
        )
    splits = {
        key: _splits(content[key], f'{source}: {key!r}')
        for key in ('train_videos', 'test_videos')
    }
    named = {name: key for key in splits for split in splits[key] for name in split}
    named = {**dict.fromkeys(tubes, 'gttubes'), **named}
    for key, known in (
        ('nframes', nframes),
        ('resolution', resolution),
        ('gttubes', tubes),
    ):
        for name in named:
            if name not in known:
                raise ContentError(
                    f'{source}: {named[name]!r} names the video {name}, which '
                    f'{key!r} lacks; add it there or remove it here.'
                )
    return TubeAnnotations(
        labels,
        splits['train_videos'],
        splits['test_videos'],
        nframes,
        resolution,
        tubes,
    )


def _mapping(content: Mapping, key: str, source: str) -> dict[str, Any]:
    if not isinstance(content[key], Mapping):
        raise ContentError(
            f'{source}: {key!r} is a {type(content[key]).__name__}; write a dict of '
            'videos.'
        )
    names = _texts(list(content[key]), f'{source}: {key!r}')
    return dict(zip(names, content[key].values(), strict=True))


def _texts(values: Any, place: str) -> tuple[str, ...]:
    values = as_array(values, place).tolist() if is_array(values) else values
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise ContentError(
            f'{place} is a {type(values).__name__}; write a list of names.'
        )
    wrong = [value for value in values if not isinstance(value, str)]
    if wrong:
        raise ContentError(
            f'{place} has the name {wrong[0]!r} of type {type(wrong[0]).__name__}; '
            'write names as text.'
        )
    return tuple(values)


def _kind(value: Any) -> str:
    return 'array' if is_array(value) else type(value).__name__


def _splits(values: Any, place: str) -> tuple[tuple[str, ...], ...]:
    if not isinstance(values, Sequence) or any(isinstance(v, str) for v in values):
        raise ContentError(
            f'{place} is not a list with a list of videos for each split; write it so.'
        )
    return tuple(
        _texts(value, f'{place}, split {i}') for i, value in enumerate(values, 1)
    )


def _count(value: Any, place: str) -> int:
    number = _number(value)
    if number is None or number < 1 or int(number) != number:
        shown = repr(value) if number is None else f'{number:g}'
        raise ContentError(f'{place} is {shown}; write a whole number from 1 upwards.')
    return int(number)


def _size(value: Any, place: str) -> tuple[int, int]:
    value = as_array(value, place).tolist() if is_array(value) else value
    if not isinstance(value, Sequence) or len(value) != 2:
        raise ContentError(
            f'{place} is no pair of numbers; write height and width in pixels.'
        )
    height, width = (_count(side, place) for side in value)
    return height, width


def _number(value: Any) -> float | None:
    value = to_plain(value)
    known = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if known and np.isfinite(value):
        return float(value)
    return None


def _tubes(classes: Any, place: str, num_labels: int) -> dict[int, list[np.ndarray]]:
    if not isinstance(classes, Mapping):
        raise ContentError(
            f'{place} has tubes in a {type(classes).__name__}; write a dict from labels '
            'to lists.'
        )
    found = {}
    for key, arrays in classes.items():
        label = _number(key)
        if label is None or label not in range(num_labels):
            shown = to_plain(key)
            raise ContentError(
                f'{place} has tubes of label {shown!r}; number the {num_labels} labels '
                f'from 0 to {num_labels - 1}.'
            )
        if not isinstance(arrays, Sequence):
            raise ContentError(
                f'{place}, label {int(label)}, has tubes in one {_kind(arrays)}; write a '
                'list of arrays.'
            )
        found[int(label)] = [
            _tube(array, f'{place}, label {int(label)}, tube {i}')
            for i, array in enumerate(arrays)
        ]
    return found


def _tube(value: Any, place: str) -> np.ndarray:
    tube = as_array(value, place)
    if tube.dtype.kind not in 'iuf' or tube.ndim != 2 or tube.shape[1] != 5:
        raise ContentError(
            f'{place} has the shape {tube.shape} and the type {tube.dtype}; write '
            'numbers of shape (n, 5), rows of frame, x1, y1, x2, y2.'
        )
    tube = tube.astype(np.float64)
    if not len(tube):
        raise ContentError(f'{place} has no row; remove it.')
    if not np.isfinite(tube).all():
        row = tube[~np.isfinite(tube).all(axis=1)][0]
        raise ContentError(
            f'{place} has a number that is not finite in frame {row[0]:g}; correct or '
            'remove the row.'
        )
    frames, low, high = tube[:, 0], tube[:, 1:3], tube[:, 3:]
    odd = np.flatnonzero((frames != np.round(frames)) | (frames < 1))
    if len(odd):
        raise ContentError(
            f'{place} has the frame {frames[odd[0]]:g}; count frames in whole numbers '
            'from 1 upwards.'
        )
    if (np.diff(frames) <= 0).any():
        row = int(np.flatnonzero(np.diff(frames) <= 0)[0])
        raise ContentError(
            f'{place} goes from frame {frames[row]:g} to {frames[row + 1]:g}; sort '
            'its rows and keep one for each frame.'
        )
    wrong = np.flatnonzero((low > high).any(axis=1))
    if len(wrong):
        box = ', '.join(f'{number:g}' for number in tube[wrong[0], 1:])
        raise ContentError(
            f'{place} has the box ({box}) in frame {frames[wrong[0]]:g}, which is '
            'upside down; write it as x1, y1, x2, y2.'
        )
    return tube
