"""Persons of keyframes and videos as bytes, and boxes of a proposal file beside them.

mmengine keeps a dataset as one buffer of pickled samples, which worker processes share.
Of a pickled small array most is not its numbers: samples hold the bytes alone.

k persons of a keyframe, n boxes found in it.
"""

from collections.abc import Sequence
from reprlib import repr as shorten
from typing import Any, NamedTuple

import numpy as np

from stmixer_mm.errors import UserError, blame
from stmixer_mm.plain_pickle import read_plain_pickle

_REMEDY = 'write it again'


def pack_persons(
    bboxes_norm: np.ndarray, labels: np.ndarray, entity_ids: np.ndarray
) -> tuple[bytes, bytes, bytes]:
    """Bytes of (k, 4), of multi-hot (k, columns), and of (k,)."""
    return (
        np.asarray(bboxes_norm, np.float32).tobytes(),
        np.asarray(labels, bool).tobytes(),
        np.asarray(entity_ids, np.int64).tobytes(),
    )


def unpack_persons(
    packed: Sequence[bytes], columns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What :func:`pack_persons` was given, to be written to."""
    bboxes_norm, labels, entity_ids = packed
    return (
        unpack_bboxes(bboxes_norm),
        np.frombuffer(labels, bool).reshape(-1, columns).copy(),
        np.frombuffer(entity_ids, np.int64).copy(),
    )


def unpack_bboxes(packed: bytes) -> np.ndarray:
    """Boxes (k, 4) float32, to be written to."""
    return np.frombuffer(packed, np.float32).reshape(-1, 4).copy()


class Tracks(NamedTuple):
    """The P boxes of the persons of a video.

    Times are seconds, or numbers of frames from 1.
    """

    times: np.ndarray  # (P,)
    bboxes_norm: np.ndarray  # (P, 4)
    labels: np.ndarray  # (P, columns) bool, multi-hot
    entity_ids: np.ndarray  # (P,) int
    seconds: np.ndarray | None  # that are annotated, rising; None for all frames


def pack_tracks(
    times: np.ndarray, persons: Sequence[bytes], seconds: np.ndarray | None = None
) -> tuple[bytes, Sequence[bytes], bytes | None]:
    """Bytes of :class:`Tracks`, of persons as :func:`pack_persons` packs them."""
    packed = None if seconds is None else np.asarray(seconds, np.float64).tobytes()
    return np.asarray(times, np.float64).tobytes(), persons, packed


def unpack_tracks(
    packed: tuple[bytes, Sequence[bytes], bytes | None], columns: int
) -> Tracks:
    """What :func:`pack_tracks` was given."""
    times, persons, seconds = packed
    return Tracks(
        np.frombuffer(times),
        *unpack_persons(persons, columns),
        None if seconds is None else np.frombuffer(seconds),
    )


def merge_equal(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge equal rows: persons that nothing but their labels tells apart.

    Args:
        rows: (n, m)
        labels: (n, columns) bool

    Returns:
        Numbers (k,) of the first of each of the different rows, rising, and the labels
        (k, columns) of all its likes.
    """
    _, first, same = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    merged = np.zeros((len(first), labels.shape[1]), bool)
    np.logical_or.at(merged, np.argsort(order)[same.reshape(-1)], labels)
    return first[order], merged


def read_proposals(path: str, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Boxes (n, 4), or with scores (n, 5), of each ``img_key``.

    The file is a pickle, read so that it cannot run code.

    Args:
        path: The file.
        keys: Of the keyframes that want proposals; some may be absent.

    Raises:
        UserError: naming the file and the keyframe; also if it has none of the keys.
    """
    content = read_plain_pickle(path)
    proposals = {}
    with blame(f"{path} is not a dict from 'video_id,timestamp' to boxes", _REMEDY):
        items = content.items()
    for key, boxes in items:
        with blame(
            f'{path}: the proposals of {key} are not rows of x1, y1, x2, y2 in [0, 1] '
            'and, if you like, a score',
            _REMEDY,
        ):
            proposals[key] = _boxes(boxes)
    if keys and proposals.keys().isdisjoint(keys):
        raise UserError(
            f'{path} has none of the {len(keys)} keyframes, the first of which is '
            f'{keys[0]!r}, but {shorten(list(proposals))}; give the proposal file of '
            'this split.'
        )
    return proposals


def _boxes(rows: Any) -> np.ndarray:
    """(n, 4 or 5); ``ValueError`` for anything else."""
    found = np.array(rows, dtype=float)
    if not found.size:
        return np.zeros((0, 4))
    if found.ndim != 2 or found.shape[1] not in (4, 5):
        raise ValueError(f'they have the shape {found.shape}')
    low, high = found[:, :2], found[:, 2:4]
    is_right = ((low >= 0) & (low <= high) & (high <= 1)).all(axis=1)
    is_right &= np.isfinite(found).all(axis=1)
    if not is_right.all():
        raise ValueError(f'a row is {found[~is_right][0].tolist()}')
    return found
