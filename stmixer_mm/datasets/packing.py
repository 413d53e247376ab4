"""Persons of keyframes as bytes, and boxes of a proposal file beside them.

mmengine keeps a dataset as one buffer of pickled samples, which worker processes share.
Of a pickled small array most is not its numbers: samples hold the bytes alone.

k persons of a keyframe, n boxes found in it.
"""

from collections.abc import Sequence

import numpy as np

from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import check_file
from stmixer_mm.plain_pickle import read_plain_pickle


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


def add_proposals(
    infos: Sequence[dict], path: str, *, score_thr: float, max_num: int
) -> None:
    """Set ``proposals`` of samples with an ``img_key``, packed, to those of a file.

    Args:
        infos: The samples; one that the file lacks gets none.
        path: See :func:`read_proposals`.
        score_thr: Keep boxes that score this, and always the best one.
        max_num: Keep this many at most, in the order of the file.
    """
    proposals = read_proposals(path, [info['img_key'] for info in infos])
    for info in infos:
        found = proposals.get(info['img_key'], np.zeros((0, 4)))
        if found.shape[1] == 5 and len(found):
            scores = found[:, 4]
            found = found[scores >= min(score_thr, scores.max())]
        info['proposals'] = found[:max_num, :4].astype(np.float32).tobytes()


def read_proposals(path: str, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Boxes (n, 4), or with scores (n, 5), of each ``img_key``.

    The file is a pickle, read so that it cannot run code.

    Args:
        path: The file.
        keys: Of the keyframes that want proposals.

    Raises:
        UserError: naming the file and the keyframe; also if it has none of the keys.
    """
    check_file(path, remedy='correct proposal_file')
    content = read_plain_pickle(path)
    form = 'give rows of x1, y1, x2, y2 and, if you like, a score'
    if not isinstance(content, dict):
        raise UserError(
            f'{path} holds a {type(content).__name__}; write a dict from '
            "'video_id,timestamp' to boxes (n, 4 or 5)."
        )
    proposals = {}
    for key, rows in content.items():
        subject = f'{path}: the proposals of {key}'
        with blame(f'{subject} are not an array of numbers', form):
            found = np.array(rows, dtype=float)
        if not found.size:
            found = np.zeros((0, 4))
        if found.ndim != 2 or found.shape[1] not in (4, 5):
            raise UserError(f'{subject} have the shape {found.shape}; {form}.')
        bboxes = found[:, :4]
        for is_fault, fault in (
            (not np.isfinite(found).all(), 'are not all finite; correct them'),
            ((bboxes[:, :2] > bboxes[:, 2:]).any(), f'are upside down; {form}'),
            (
                ((bboxes < 0) | (bboxes > 1)).any(),
                'lie outside [0, 1]; divide them by the size of the frame',
            ),
        ):
            if is_fault:
                raise UserError(f'{subject} {fault}.')
        proposals[key] = found
    if keys and proposals.keys().isdisjoint(keys):
        found = f'keys like {next(iter(proposals))!r}' if proposals else 'no key at all'
        raise UserError(
            f'{path} has none of the {len(keys)} keyframes, the first of which is '
            f'{keys[0]!r}, but {found}; give the proposal file of this split.'
        )
    return proposals
