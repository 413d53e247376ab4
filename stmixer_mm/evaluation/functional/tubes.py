"""Tubes: boxes of one person doing one action, frame by frame, as pure functions.

N tubes with R rows (a box in a frame) in all; boxes xyxy in pixels, frames counted
from 1. A sequence is a class in a video: only its tubes are compared with each other.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from stmixer_mm.evaluation.functional.matching import (
    Pairs,
    aligned_iou,
    iou_rounding,
    join_pairs,
    take,
)


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
    """Overlaps of K pairs of tubes; 0 without common frames."""

    temporal: np.ndarray  # (K,) IoU of the spans in time
    spatial: np.ndarray  # (K,) mean IoU of the boxes in the frames that both have
    rounding: np.ndarray  # (K,) error of that, see ``iou_rounding``

    @property
    def ious(self) -> np.ndarray:
        """(K,)."""
        return self.temporal * self.spatial

    @property
    def reach(self) -> np.ndarray:
        """(K,) the highest thresholds that count as reached."""
        return self.temporal * (self.spatial + self.rounding)

    @property
    def excess(self) -> np.ndarray:
        """(K,) the lowest thresholds that do not count as exceeded."""
        return self.temporal * (self.spatial - self.rounding)


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
    return Tubes(
        tubes.sequences[index],
        tubes.scores[index],
        lengths,
        tubes.frames[rows],
        tubes.bboxes[rows],
    )


def remake(tubes: Iterable[np.ndarray], *, step: int = 1) -> list[np.ndarray]:
    """Tubes (n, 5) made of the rows (n, 5) of others, frame by frame.

    A row joins the first tube that ends ``step`` frames before, whatever their overlap, or
    starts a new tube. Source: OpenMixer, whose tubes mix persons in this way.
    """
    rows = np.concatenate([np.zeros((0, 5)), *tubes])
    joined_tubes: list[list[np.ndarray]] = []
    for row in rows[np.argsort(rows[:, 0], kind='stable')]:
        for tube in joined_tubes:
            if tube[-1][0] == row[0] - step:
                tube.append(row)
                break
        else:
            joined_tubes.append([row])
    return [np.stack(tube) for tube in joined_tubes]


def tube_overlaps(
    tube: Tubes,
    candidates: Tubes,
    *,
    pixel: float = 1,
    frame: float = 1,
    least_common: int = 1,
) -> Overlaps:
    """Spatio-temporal overlaps (K,) of one tube with K candidates.

    Frames are counted one by one, so that a tube may have gaps.
    Source: ``iou3dt`` of the scripts of ACT (``frame=1``) and of MultiSports'
    evaluate_multisports.py (``frame=0``), which divides by zero where both tubes are
    of the same one frame: here they overlap in time by 1.

    Args:
        tube: A single one.
        candidates: K of them.
        pixel: Added to the sides of a box, x2 - x1.
        frame: Added to the length of a span, its last minus its first frame.
        least_common: Frames that they share at least, else they do not overlap.
    """
    row = np.searchsorted(tube.frames, candidates.frames)
    inside = np.flatnonzero(tube.frames.take(row, mode='clip') == candidates.frames)
    first, second = tube.bboxes[row[inside]], candidates.bboxes[inside]
    ious = aligned_iou(first, second, pixel=pixel)
    rounding = iou_rounding(first, second, ious, pixel=pixel)
    size = len(candidates.lengths)
    owners = np.repeat(np.arange(size), candidates.lengths)[inside]
    common = np.bincount(owners, minlength=size)
    sums = [np.bincount(owners, v, minlength=size) for v in (ious, rounding)]
    spatial, rounding = sums / np.maximum(common, 1)
    intersection = common + (frame - 1)
    union = len(tube.frames) + candidates.lengths - common + (frame - 1)
    temporal = np.divide(intersection, union, out=np.ones(size), where=union > 0)
    return Overlaps(np.where(common >= least_common, temporal, 0), spatial, rounding)


def tube_pairs(
    tubes: Tubes,
    gts: Tubes,
    *,
    min_iou: float = 0,
    exceed: bool = False,
    **measures: float,
) -> Pairs:
    """Detected and true tubes of one sequence with an IoU that reaches min_iou.

    ``exceed``: it must be above; ``measures``: those of ``tube_overlaps``.
    """
    parts = []
    for gt, place, overlaps in overlaps_by_gt(tubes, gts, **measures):
        detections = np.arange(place.start, place.stop)
        gt_of = np.full(len(detections), gt)
        reach = np.nextafter(overlaps.excess, -1) if exceed else overlaps.reach
        pairs = Pairs(detections, gt_of, overlaps.ious, reach)
        parts.append(take(pairs, reach >= min_iou))
    return join_pairs(parts)


def suppress_tubes(tubes: Tubes, iou_thr: float, *, pixel: float = 1) -> Tubes:
    """Non-maximum suppression within each sequence.

    Drops each tube that overlaps a remaining one of a higher score by more than iou_thr.
    Source: ``nms3dt`` of the scripts of ACT. Tubes are returned by descending score.
    """
    tubes = take_tubes(tubes, np.lexsort((-tubes.scores, tubes.sequences)))
    ends = tubes.ends
    stops = np.searchsorted(tubes.sequences, tubes.sequences, side='right')
    keep = np.ones(len(ends), dtype=bool)
    for tube, stop in enumerate(stops):
        if keep[tube] and tube + 1 < stop:
            best = _slice(tubes, ends, tube, tube + 1)
            candidates = _slice(tubes, ends, tube + 1, stop)
            overlaps = tube_overlaps(best, candidates, pixel=pixel)
            keep[tube + 1 : stop] &= overlaps.excess <= iou_thr
    return take_tubes(tubes, keep)


def overlaps_by_gt(
    tubes: Tubes, gts: Tubes, **measures: float
) -> Iterator[tuple[int, slice, Overlaps]]:
    """Number of each true tube, the tubes of its sequence, and their overlaps."""
    starts = np.searchsorted(tubes.sequences, gts.sequences, side='left')
    stops = np.searchsorted(tubes.sequences, gts.sequences, side='right')
    ends, gt_ends = tubes.ends, gts.ends
    for gt, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        if start < stop:
            gt_tube = _slice(gts, gt_ends, gt, gt + 1)
            candidates = _slice(tubes, ends, start, stop)
            overlaps = tube_overlaps(gt_tube, candidates, **measures)
            yield gt, slice(start, stop), overlaps


def _slice(tubes: Tubes, ends: np.ndarray, start: int, stop: int) -> Tubes:
    """Consecutive tubes as views; ``ends`` are theirs, counted once for all."""
    rows = slice(ends[start - 1] if start else 0, ends[stop - 1])
    return Tubes(
        tubes.sequences[start:stop],
        tubes.scores[start:stop],
        tubes.lengths[start:stop],
        tubes.frames[rows],
        tubes.bboxes[rows],
    )
