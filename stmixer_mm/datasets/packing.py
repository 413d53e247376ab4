"""Persons of keyframes as bytes, and boxes of a proposal file beside them.

mmengine keeps a dataset as one buffer of pickled samples, which worker processes share.
Of a pickled small array most is not its numbers: samples hold the bytes alone.

k persons of a keyframe, n boxes found in it.
"""

from collections.abc import Sequence

import numpy as np

from stmixer_mm.errors import UserError
from stmixer_mm.files import check_file
from stmixer_mm.plain_pickle import read_plain_pickle


def pack_persons(
    bboxes_norm: np.ndarray, labels: np.ndarray, entity_ids: np.ndarray
) -> tuple[bytes, bytes, bytes]:
    """Bytes of (k, 4), of (k, columns) as they are, and of (k,)."""
    return (
        np.asarray(bboxes_norm, np.float32).tobytes(),
        labels.tobytes(),
        np.asarray(entity_ids, np.int64).tobytes(),
    )


def unpack_persons(
    packed: Sequence[bytes], *, columns: int, dtype: type = bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What :func:`pack_persons` was given, labels of that type, to be written to."""
    bboxes_norm, labels, entity_ids = packed
    return (
        unpack_bboxes(bboxes_norm),
        np.frombuffer(labels, dtype).reshape(-1, columns).copy(),
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

    Raises:
        OSError, ValueError: as :func:`read_proposals`.
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
        OSError: the file is missing, or may not be read.
        ValueError: naming the file and the keyframe; also if it has none of the keys.
    """
    check_file(path, remedy='correct proposal_file')
    content = read_plain_pickle(path)
    if not isinstance(content, dict):
        raise UserError(
            f'{path} holds a {type(content).__name__}; write a dict from '
            "'video_id,timestamp' to boxes (n, 4 or 5)."
        )
    proposals = {}
    for key, rows in content.items():
        try:
            found = proposals[key] = np.asarray(rows, dtype=float)
        except (TypeError, ValueError) as error:
            raise UserError(
                f'{path}: the proposals of {key} are no array of numbers; give rows of '
                'x1, y1, x2, y2 and, if you like, a score.'
            ) from error
        if found.size == 0:
            proposals[key] = np.zeros((0, 4))
        elif found.ndim != 2 or found.shape[1] not in (4, 5):
            raise UserError(
                f'{path}: the proposals of {key} have the shape {found.shape}; give '
                'rows of x1, y1, x2, y2 and, if you like, a score.'
            )
        elif not np.isfinite(found).all():
            raise UserError(
                f'{path}: the proposals of {key} are not all finite; correct or remove '
                'them.'
            )
        elif (found[:, :2] > found[:, 2:4]).any():
            raise UserError(
                f'{path}: a proposal of {key} is upside down; write it as x1, y1, x2, '
                'y2.'
            )
        elif not ((found[:, :4] >= 0) & (found[:, :4] <= 1)).all():
            raise UserError(
                f'{path}: a proposal of {key} lies outside [0, 1]; divide its '
                'coordinates by the size of the frame.'
            )
    if keys and proposals.keys().isdisjoint(keys):
        found = f'keys like {next(iter(proposals))!r}' if proposals else 'no key at all'
        raise UserError(
            f'{path} has none of the {len(keys)} keyframes, the first of which is '
            f'{keys[0]!r}, but {found}; give the proposal file of this split.'
        )
    return proposals
