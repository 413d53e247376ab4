"""Frame mAP as pure functions of arrays.

N detections, M ground truths; ``frames`` are numbers of keyframes, ``classes`` numbers
of classes, boxes xyxy in any one unit.
"""

from typing import NamedTuple

import numpy as np


class Boxes(NamedTuple):
    """Boxes of one class, or of all persons, over all keyframes."""

    frames: np.ndarray  # (N,) int
    bboxes: np.ndarray  # (N, 4) float
    scores: np.ndarray  # (N,) float; of no meaning in ground truth


class BestMatch(NamedTuple):
    """For each detection the ground truth of its keyframe that it overlaps most."""

    index: np.ndarray  # (N,) int, -1 where the keyframe has no ground truth
    iou: np.ndarray  # (N,) float, 0 there


def aligned_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU (N,) of boxes (N, 4) with boxes (N, 4), pair by pair; 0 for empty ones."""
    low = np.maximum(first[:, :2], second[:, :2])
    high = np.minimum(first[:, 2:], second[:, 2:])
    intersection = (high - low).clip(min=0).prod(axis=1)
    union = _area(first) + _area(second) - intersection
    zeros = np.zeros_like(union)
    return np.divide(intersection, union, out=zeros, where=union > 0)


def best_matches(detections: Boxes, truths: Boxes) -> BestMatch:
    """Pair each detection with the first of the ground truths it overlaps most.

    ``truths.frames`` must be sorted.
    """
    start = np.searchsorted(truths.frames, detections.frames, side='left')
    stop = np.searchsorted(truths.frames, detections.frames, side='right')
    count = stop - start
    index = np.full(len(count), -1)
    iou = np.zeros(len(count))
    paired = np.flatnonzero(count)
    if not len(paired):
        return BestMatch(index, iou)
    count, start = count[paired], start[paired]
    ends = np.cumsum(count)
    # The pairs of a detection lie next to each other: (its truths, in their order).
    truth = np.arange(ends[-1]) + np.repeat(start - (ends - count), count)
    detection = np.repeat(paired, count)
    pair_iou = aligned_iou(detections.bboxes[detection], truths.bboxes[truth])
    best = np.maximum.reduceat(pair_iou, ends - count)
    is_best = np.flatnonzero(pair_iou == np.repeat(best, count))
    _, first = np.unique(detection[is_best], return_index=True)
    index[paired] = truth[is_best[first]]
    iou[paired] = best
    return BestMatch(index, iou)


def average_precision(
    scores: np.ndarray, matches: BestMatch, num_truths: int, iou_thr: float
) -> float:
    """AP of one class, as AVA and Pascal VOC define it; NaN without ground truth.

    A detection is right if it is the highest-scoring one that claims its ground
    truth; it claims the one it overlaps most, by at least iou_thr. Equal scores keep
    their order. The area under the precision that never falls with recall is exact.
    """
    if num_truths == 0:
        return float('nan')
    order = np.argsort(-scores, kind='stable')
    claimed = np.where(matches.iou >= iou_thr, matches.index, -1)[order]
    truths, first = np.unique(claimed, return_index=True)
    right = np.zeros(len(order), dtype=bool)
    right[first[truths >= 0]] = True
    precision = np.cumsum(right) / np.arange(1, len(order) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[right].sum() / num_truths)


def recall(matches: BestMatch, num_truths: int, iou_thr: float) -> float:
    """Share of ground truths that some detection claims; NaN without ground truth."""
    if num_truths == 0:
        return float('nan')
    claimed = np.unique(matches.index[matches.iou >= iou_thr])
    return float((claimed >= 0).sum() / num_truths)


def _area(bboxes: np.ndarray) -> np.ndarray:
    return (bboxes[:, 2:] - bboxes[:, :2]).clip(min=0).prod(axis=1)
