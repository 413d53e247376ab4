"""Frame mAP as pure functions of arrays.

N detections, M ground truths; ``frames`` are numbers of keyframes, or of a class in a
keyframe, boxes xyxy in any one unit.
"""

from typing import NamedTuple

import numpy as np

from stmixer_mm.evaluation.functional.average_precision import AP_MODES, by_score
from stmixer_mm.evaluation.functional.matching import (
    BestMatch,
    Pairs,
    aligned_iou,
    first_claims,
    group_pairs,
)


class Boxes(NamedTuple):
    """Boxes of one class, or of all persons, over all keyframes."""

    frames: np.ndarray  # (N,) int
    bboxes: np.ndarray  # (N, 4) float
    scores: np.ndarray  # (N,) float; of no meaning in ground truth


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


def average_precision(
    scores: np.ndarray,
    matches: BestMatch,
    num_truths: int,
    iou_thr: float,
    *,
    ap_mode: str = 'interpolated',
) -> float:
    """AP of one class, as AVA and Pascal VOC define it; NaN without ground truth.

    Right are the ``first_claims``; equal scores keep their order. ``ap_mode`` names
    the area, one of ``AP_MODES``.
    """
    if num_truths == 0:
        return float('nan')
    right = first_claims(scores, matches, iou_thr)[by_score(scores)]
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
