"""Frame mAP as pure functions of arrays.

N detections, M ground truths; ``frames`` are numbers of keyframes, or of a class in a
keyframe, boxes xyxy in any one unit.
"""

from typing import NamedTuple

import numpy as np

from .average_precision import AP_MODES, by_score
from .matching import Pairs, aligned_iou, group_pairs

__all__ = [
    'BestMatch',
    'Boxes',
    'aligned_iou',
    'average_precision',
    'best_matches',
    'best_of_frames',
    'frame_pairs',
    'recall',
]


class Boxes(NamedTuple):
    """Boxes of one class, or of all persons, over all keyframes."""

    frames: np.ndarray  # (N,) int
    bboxes: np.ndarray  # (N, 4) float
    scores: np.ndarray  # (N,) float; of no meaning in ground truth


class BestMatch(NamedTuple):
    """For each detection the ground truth of its keyframe that it overlaps most."""

    index: np.ndarray  # (N,) int, -1 where the keyframe has no ground truth
    iou: np.ndarray  # (N,) float, 0 there


def frame_pairs(
    detections: Boxes, truths: Boxes, *, pixel: float = 0, min_iou: float = 0
) -> Pairs:
    """Detections and ground truths of one keyframe with an IoU of at least min_iou.

    ``truths.frames`` must be sorted; ``pixel`` as in ``aligned_iou``.
    """
    parts = [Pairs(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
    for detection, truth in group_pairs(detections.frames, truths.frames):
        iou = aligned_iou(
            detections.bboxes[detection], truths.bboxes[truth], pixel=pixel
        )
        kept = iou >= min_iou
        parts.append(Pairs(detection[kept], truth[kept], iou[kept]))
    return Pairs(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def best_matches(detections: Boxes, truths: Boxes) -> BestMatch:
    """Pair each detection with the first of the ground truths it overlaps most.

    ``truths.frames`` must be sorted.
    """
    pairs = frame_pairs(detections, truths)
    index = np.full(len(detections.frames), -1)
    iou = np.zeros(len(index))
    paired, start = np.unique(pairs.detections, return_index=True)
    if not len(paired):
        return BestMatch(index, iou)
    best = np.maximum.reduceat(pairs.ious, start)
    count = np.diff(np.append(start, len(pairs.ious)))
    is_best = np.flatnonzero(pairs.ious == np.repeat(best, count))
    _, first = np.unique(pairs.detections[is_best], return_index=True)
    index[paired] = pairs.truths[is_best[first]]
    iou[paired] = best
    return BestMatch(index, iou)


def average_precision(
    scores: np.ndarray,
    matches: BestMatch,
    num_truths: int,
    iou_thr: float,
    *,
    ap_mode: str = 'interpolated',
) -> float:
    """AP of one class, as AVA and Pascal VOC define it; NaN without ground truth.

    A detection is right if it is the highest-scoring one that claims its ground
    truth; it claims the one it overlaps most, by at least iou_thr. Equal scores keep
    their order. ``ap_mode`` names the area, one of ``AP_MODES``.
    """
    if num_truths == 0:
        return float('nan')
    order = by_score(scores)
    claimed = np.where(matches.iou >= iou_thr, matches.index, -1)[order]
    truths, first = np.unique(claimed, return_index=True)
    right = np.zeros(len(order), dtype=bool)
    right[first[truths >= 0]] = True
    return AP_MODES[ap_mode](right, num_truths)


def best_of_frames(frames: np.ndarray, scores: np.ndarray, number: int) -> np.ndarray:
    """Mask (N,) of the highest scores of each frame; equal ones by their order."""
    order = np.lexsort((-scores, frames))
    sorted_frames = frames[order]
    rank = np.arange(len(order)) - np.searchsorted(sorted_frames, sorted_frames)
    best = np.zeros(len(order), dtype=bool)
    best[order] = rank < number
    return best


def recall(matches: BestMatch, num_truths: int, iou_thr: float) -> float:
    """Share of ground truths that some detection claims; NaN without ground truth."""
    if num_truths == 0:
        return float('nan')
    claimed = np.unique(matches.index[matches.iou >= iou_thr])
    return float((claimed >= 0).sum() / num_truths)
