"""Tubes: boxes of one person doing one action, frame by frame, as pure functions.

N tubes with R rows (a box in a frame) in all; boxes xyxy in pixels, frames counted
from 1. A sequence is a class in a video: only its tubes are compared with each other.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from stmixer_mm.evaluation.functional.matching import Pairs, aligned_iou, join_pairs


class Tubes(NamedTuple):
    """Tubes in ascending order of their sequences, the rows of each by frame."""

    sequences: np.ndarray  # (N,) int
    scores: np.ndarray  # (N,) float; of no meaning in ground truth
    lengths: np.ndarray  # (N,) int, rows of each
    frames: np.ndarray  # (R,) int
    bboxes: np.ndarray  # (R, 4) float

    @property
    def ends(self) -> np.ndarray:
        """(N,) where the rows of each tube end."""
        return np.cumsum(self.lengths)


class Overlaps(NamedTuple):
    """Overlaps of K tubes with one of another kind each; 0 if they do not meet."""

    ious: np.ndarray  # (K,) temporal * spatial
    temporal: np.ndarray  # (K,) IoU of the spans in time
    spatial: np.ndarray  # (K,) mean IoU of the boxes in the frames that both have


def join_tubes(tubes: Iterable[tuple[int, np.ndarray, float]]) -> Tubes:
    """Tubes of sequences, arrays (n, 5) of frame, x1, y1, x2, y2, and scores."""
    tubes = sorted(tubes, key=lambda tube: tube[0])
    sequences, arrays, scores = zip(*tubes, strict=True) if tubes else ((), (), ())
    table = np.concatenate([np.zeros((0, 5)), *arrays])
    return Tubes(
        np.array(sequences, dtype=int),
        np.array(scores, dtype=float),
        np.array([len(array) for array in arrays], dtype=int),
        table[:, 0].astype(int),
        table[:, 1:],
    )


def take_tubes(tubes: Tubes, index: np.ndarray) -> Tubes:
    """The tubes of an index (K,) or mask (N,), in this order."""
    if index.dtype == bool:
        index = np.flatnonzero(index)
    lengths = tubes.lengths[index]
    starts = (tubes.ends - tubes.lengths)[index]
    offsets = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    rows = np.arange(len(offsets)) + offsets
    whole, by_row = tubes[:2], tubes[3:]
    return Tubes(
        *(field[index] for field in whole), lengths, *(field[rows] for field in by_row)
    )


def tube_overlaps(
    tube: Tubes, others: Tubes, *, pixel: float = 1, frame: float = 1
) -> Overlaps:
    """Spatio-temporal overlaps (K,) of one tube with K others.

    Frames are counted one by one, so that a tube may have gaps.
    Source: ``iou3dt`` of the scripts of ACT (``frame=1``) and of MultiSports'
    evaluate_multisports.py (``frame=0``), which divides by zero where both tubes are
    of the same one frame: here they overlap in time by 1.

    Args:
        tube: A single one.
        others: K of them.
        pixel: What a box measures beyond x2 - x1.
        frame: What a span measures beyond its last minus its first frame.
    """
    frames, num_others = tube.frames, len(others.lengths)
    row_of = np.full(frames[-1] - frames[0] + 1, -1)
    row_of[frames - frames[0]] = np.arange(len(frames))
    shifted = others.frames - frames[0]
    inside = np.flatnonzero((shifted >= 0) & (shifted < len(row_of)))
    row = row_of[shifted[inside]]
    inside, row = inside[row >= 0], row[row >= 0]
    other = np.repeat(np.arange(num_others), others.lengths)[inside]
    overlaps = aligned_iou(tube.bboxes[row], others.bboxes[inside], pixel=pixel)
    common = np.bincount(other, minlength=num_others)
    overlap = np.bincount(other, overlaps, minlength=num_others)
    met = common > 0
    spatial = np.divide(overlap, common, out=np.zeros(num_others), where=met)
    intersection = common + (frame - 1)
    union = len(frames) + others.lengths - common + (frame - 1)
    temporal = np.divide(intersection, union, out=np.ones(num_others), where=union > 0)
    temporal = np.where(met, temporal, 0)
    return Overlaps(temporal * spatial, temporal, spatial)


def tube_pairs(
    tubes: Tubes, gts: Tubes, *, pixel: float, frame: float, min_iou: float = 0
) -> Pairs:
    """Detected and true tubes of one sequence with an IoU of at least min_iou."""
    found = []
    for gt, place, (ious, *_) in overlaps_by_gt(tubes, gts, pixel=pixel, frame=frame):
        kept = np.flatnonzero(ious >= min_iou)
        ious = ious[kept]
        found.append(Pairs(place.start + kept, np.full(len(kept), gt), ious, ious))
    return join_pairs(found)


def suppress_tubes(tubes: Tubes, iou_thr: float, *, pixel: float = 1) -> Tubes:
    """Non-maximum suppression within each sequence.

    A tube goes that overlaps a higher-scoring one that stays by more than iou_thr.
    Source: ``nms3dt`` of the scripts of ACT. What stays comes by descending score.
    """
    tubes = take_tubes(tubes, np.lexsort((-tubes.scores, tubes.sequences)))
    ends = tubes.ends
    stops = np.searchsorted(tubes.sequences, tubes.sequences, side='right')
    stays = np.ones(len(ends), dtype=bool)
    for tube, stop in enumerate(stops):
        if stays[tube] and tube + 1 < stop:
            one = _slice(tubes, ends, tube, tube + 1)
            others = _slice(tubes, ends, tube + 1, stop)
            ious = tube_overlaps(one, others, pixel=pixel).ious
            stays[tube + 1 : stop] &= ious <= iou_thr
    return take_tubes(tubes, stays)


def overlaps_by_gt(
    tubes: Tubes, gts: Tubes, *, pixel: float, frame: float
) -> Iterator[tuple[int, slice, Overlaps]]:
    """For each true tube its number, the tubes of its sequence, and their overlaps."""
    starts = np.searchsorted(tubes.sequences, gts.sequences, side='left')
    stops = np.searchsorted(tubes.sequences, gts.sequences, side='right')
    ends, gt_ends = tubes.ends, gts.ends
    for gt, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        if start < stop:
            one = _slice(gts, gt_ends, gt, gt + 1)
            others = _slice(tubes, ends, start, stop)
            overlaps = tube_overlaps(one, others, pixel=pixel, frame=frame)
            yield gt, slice(start, stop), overlaps


def _slice(tubes: Tubes, ends: np.ndarray, start: int, stop: int) -> Tubes:
    """Consecutive tubes as views; ``ends`` are theirs, counted once for all."""
    rows = slice(ends[start - 1] if start else 0, ends[stop - 1])
    whole, by_row = tubes[:3], tubes[3:]
    return Tubes(
        *(field[start:stop] for field in whole), *(field[rows] for field in by_row)
    )
