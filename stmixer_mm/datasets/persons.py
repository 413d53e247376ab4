"""Persons of keyframes and videos as structured arrays, and as bytes.

mmengine keeps a dataset as one buffer of pickled samples, which worker processes share.
Of a pickled small array most is not its numbers: samples have the bytes alone.
"""

from functools import cache
from typing import NamedTuple

import numpy as np


def make_persons(
    times: np.ndarray, bboxes_norm: np.ndarray, labels: np.ndarray, ids: np.ndarray
) -> np.ndarray:
    """P boxes of persons as one array (P,), with a field for each argument.

    Args:
        times: (P,) seconds, or numbers of frames from 1.
        bboxes_norm: (P, 4) xyxy in [0, 1].
        labels: (P, num_classes), multi-hot, column 0 the dummy.
        ids: (P,) int, of the person in its video.
    """
    labels = np.asarray(labels, bool)
    persons = np.zeros(len(labels), _dtype(labels.shape[1]))
    persons['time'], persons['bbox_norm'] = times, bboxes_norm
    persons['labels'], persons['id'] = labels, ids
    return persons


def unpack_persons(packed: bytes, num_classes: int) -> np.ndarray:
    """The persons of which these are ``tobytes()``."""
    return np.frombuffer(packed, _dtype(num_classes))


@cache
def _dtype(num_classes: int) -> np.dtype:
    return np.dtype(
        [
            ('time', np.float64),
            ('bbox_norm', np.float32, (4,)),
            ('labels', bool, (num_classes,)),
            ('id', np.int64),
        ]
    )


class Tracks(NamedTuple):
    """The persons of a video."""

    persons: np.ndarray  # (P,)
    seconds: np.ndarray | None  # that are annotated, rising; None: all frames are


def merge_equal(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge equal rows: persons that nothing but their labels tells apart.

    Args:
        rows: (n, m)
        labels: (n, columns) bool

    Returns:
        Numbers (k,) of the first of each of the different rows, rising, and the labels
        (k, columns) of all equal to it.
    """
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    merged = np.zeros((len(first), labels.shape[1]), bool)
    np.logical_or.at(merged, np.argsort(order)[inverse.reshape(-1)], labels)
    return first[order], merged
