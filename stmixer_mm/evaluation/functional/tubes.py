"""Tubes: boxes of one person doing one action, frame by frame, as pure functions.

N tubes with R rows (a box in a frame) in all; boxes xyxy in pixels, frames counted
from 1. A sequence is a class in a video: only its tubes are compared with each other.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stmixer_mm.evaluation.functional.matching import Pairs, aligned_iou


class Tubes(NamedTuple):
    """Tubes in ascending order of their sequences, the rows of each by frame."""

    sequences: np.ndarray  # (N,) int
    scores: np.ndarray  # (N,) float; of no meaning in ground truth
    lengths: np.ndarray  # (N,) int, rows of each
    frames: np.ndarray  # (R,) int
    bboxes: np.ndarray  # (R, 4) float
    box_scores: np.ndarray  # (R,) float

    @property
    def ends(self) -> np.ndarray:
        """(N,) where the rows of each tube end."""
        return np.cumsum(self.lengths)


def join_tubes(
    sequences: Sequence[int], arrays: Sequence[np.ndarray], scores: Sequence[float]
) -> Tubes:
    """Tubes of arrays (n, 5 or 6) of frame, x1, y1, x2, y2 and, at will, score."""
    order = np.argsort(np.asarray(sequences, dtype=int), kind='stable')
    empty = np.zeros((0, 6))
    rows = [
        np.pad(np.asarray(arrays[i], float), ((0, 0), (0, 1)))[:, :6] for i in order
    ]
    table = np.concatenate([empty, *rows])
    return Tubes(
        np.asarray(sequences, dtype=int)[order],
        np.asarray(scores, dtype=float)[order],
        np.array([len(part) for part in rows], dtype=int),
        table[:, 0].astype(int),
        table[:, 1:5],
        table[:, 5],
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
        tubes.box_scores[rows],
    )


def tube_iou(
    frames: np.ndarray,
    bboxes: np.ndarray,
    other_frames: np.ndarray,
    other_bboxes: np.ndarray,
    other_lengths: np.ndarray,
    *,
    pixel: float = 1,
    frame: float = 1,
) -> np.ndarray:
    """Spatio-temporal IoU (K,) of one tube with K others whose rows are joined.

    It is the IoU of the spans in time, times the mean IoU of the boxes in the frames
    that both have. Frames are counted one by one, so that a tube may have gaps; for
    tubes without gaps it is ``iou3dt`` of the scripts of ACT (``frame=1``) and of
    MultiSports' evaluate_multisports.py (``frame=0``: a span of n frames measures
    n - 1). Two tubes of the same one frame overlap in time by 1 under both; the
    latter script divides by zero there.

    Args:
        frames, bboxes: (n,) and (n, 4) of the one tube.
        other_frames, other_bboxes: (R,) and (R, 4) of the others.
        other_lengths: (K,) rows of each of the others, at least 1.
        pixel: What a box measures beyond x2 - x1.
        frame: What a span measures beyond its last minus its first frame.
    """
    row_of = np.full(frames[-1] - frames[0] + 1, -1)
    row_of[frames - frames[0]] = np.arange(len(frames))
    shifted = other_frames - frames[0]
    inside = np.flatnonzero((shifted >= 0) & (shifted < len(row_of)))
    row = row_of[shifted[inside]]
    inside, row = inside[row >= 0], row[row >= 0]
    tube = np.repeat(np.arange(len(other_lengths)), other_lengths)[inside]
    overlaps = aligned_iou(bboxes[row], other_bboxes[inside], pixel=pixel)
    common = np.bincount(tube, minlength=len(other_lengths))
    overlap = np.bincount(tube, overlaps, minlength=len(other_lengths))
    met = common > 0
    spatial = np.divide(overlap, common, out=np.zeros(len(common)), where=met)
    intersection = common + (frame - 1)
    union = len(frames) + other_lengths - common + (frame - 1)
    temporal = np.divide(intersection, union, out=np.ones(len(common)), where=union > 0)
    return np.where(met, temporal * spatial, 0)


def tube_pairs(
    tubes: Tubes, truths: Tubes, *, pixel: float, frame: float, min_iou: float = 0
) -> Pairs:
    """Detected and true tubes of one sequence with an IoU of at least min_iou."""
    starts = np.searchsorted(tubes.sequences, truths.sequences, side='left')
    stops = np.searchsorted(tubes.sequences, truths.sequences, side='right')
    row_starts = np.append(0, tubes.ends)
    truth_starts = np.append(0, truths.ends)
    parts = [Pairs(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
    for truth, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        if start == stop:
            continue
        own = slice(truth_starts[truth], truth_starts[truth + 1])
        rows = slice(row_starts[start], row_starts[stop])
        ious = tube_iou(
            truths.frames[own],
            truths.bboxes[own],
            tubes.frames[rows],
            tubes.bboxes[rows],
            tubes.lengths[start:stop],
            pixel=pixel,
            frame=frame,
        )
        kept = np.flatnonzero(ious >= min_iou)
        parts.append(Pairs(start + kept, np.full(len(kept), truth), ious[kept]))
    return Pairs(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def suppress_tubes(
    tubes: Tubes, iou_thr: float, *, pixel: float = 1, frame: float = 1
) -> Tubes:
    """Non-maximum suppression within each sequence.

    A tube goes that overlaps a higher-scoring one that stays by more than iou_thr.
    Source: ``nms3dt`` of the scripts of ACT. What stays comes by descending score.
    """
    tubes = take_tubes(tubes, np.lexsort((-tubes.scores, tubes.sequences)))
    num_tubes = len(tubes.sequences)
    row_starts = np.append(0, tubes.ends)
    stops = np.searchsorted(tubes.sequences, tubes.sequences, side='right')
    stays = np.ones(num_tubes, dtype=bool)
    for tube in range(num_tubes):
        stop = stops[tube]
        if not stays[tube] or tube + 1 == stop:
            continue
        own = slice(row_starts[tube], row_starts[tube + 1])
        rows = slice(row_starts[tube + 1], row_starts[stop])
        ious = tube_iou(
            tubes.frames[own],
            tubes.bboxes[own],
            tubes.frames[rows],
            tubes.bboxes[rows],
            tubes.lengths[tube + 1 : stop],
            pixel=pixel,
            frame=frame,
        )
        stays[tube + 1 : stop] &= ious <= iou_thr
    return take_tubes(tubes, stays)
