"""Which detections are right: pairing detections with ground truths, as pure functions.

N detections, M ground truths, P pairs of them; boxes xyxy in any one unit. Only what is
of one group (a keyframe, a video) can be paired.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np

from stmixer_mm.evaluation.functional.average_precision import by_score

# So many pairs are looked at in one go, which bounds the RAM.
_PAIRS_AT_ONCE = 100_000

Arrays = TypeVar('Arrays', bound=tuple)


class Boxes(NamedTuple):
    """Boxes of one class, or of all persons, over all keyframes."""

    frames: np.ndarray  # (N,) int, numbers of keyframes
    bboxes: np.ndarray  # (N, 4) float
    scores: np.ndarray  # (N,) float; of no meaning in ground truth


class Pairs(NamedTuple):
    """Detections and ground truths of the same group that overlap."""

    detections: np.ndarray  # (P,) int
    gts: np.ndarray  # (P,) int
    ious: np.ndarray  # (P,) float


def take(arrays: Arrays, index: np.ndarray) -> Arrays:
    """A NamedTuple of arrays (N, ...) with the entries of an index or mask."""
    return type(arrays)(*(array[index] for array in arrays))


def join_pairs(found: list[Pairs]) -> Pairs:
    """All pairs in one, also if there are none."""
    none = Pairs(np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    return Pairs(*map(np.concatenate, zip(none, *found, strict=True)))


def aligned_iou(
    first: np.ndarray, second: np.ndarray, *, pixel: float = 0
) -> np.ndarray:
    """IoU (N,) of boxes (N, 4) with boxes (N, 4), pair by pair; 0 for empty ones.

    ``pixel`` is what a box measures beyond x2 - x1: 1 where x2 names the last pixel
    that belongs to it, in pixels.
    """
    low = np.maximum(first[:, :2], second[:, :2])
    high = np.minimum(first[:, 2:], second[:, 2:])
    intersection = _area(low, high, pixel)
    areas = [_area(boxes[:, :2], boxes[:, 2:], pixel) for boxes in (first, second)]
    union = areas[0] + areas[1] - intersection
    zeros = np.zeros(len(union))
    return np.divide(intersection, union, out=zeros, where=union > 0)


def group_pairs(
    groups: np.ndarray, sorted_groups: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All (first, second) of one group, some detections at a time.

    Args:
        groups: (N,) groups of the first ones, in any order.
        sorted_groups: (M,) groups of the second ones, in ascending order.

    Yields:
        Indices into both, ordered by the first, then by the second.
    """
    start = np.searchsorted(sorted_groups, groups, side='left')
    count = np.searchsorted(sorted_groups, groups, side='right') - start
    paired = np.flatnonzero(count)
    ends = np.cumsum(count[paired])
    done = 0
    while done < len(paired):
        before = ends[done - 1] if done else 0
        stop = np.searchsorted(ends, before + _PAIRS_AT_ONCE, side='right')
        part = paired[done : max(stop, done + 1)]
        done += len(part)
        counts = count[part]
        first_pair = np.cumsum(counts) - counts
        offsets = np.repeat(start[part] - first_pair, counts)
        yield np.repeat(part, counts), np.arange(len(offsets)) + offsets


def frame_pairs(
    detections: Boxes, gts: Boxes, *, pixel: float = 0, min_iou: float = 0
) -> Pairs:
    """Detections and ground truths of one keyframe with an IoU of at least min_iou.

    ``gts.frames`` must be sorted; ``pixel`` as in ``aligned_iou``.
    """
    found = []
    for detection, gt in group_pairs(detections.frames, gts.frames):
        iou = aligned_iou(detections.bboxes[detection], gts.bboxes[gt], pixel=pixel)
        found.append(take(Pairs(detection, gt, iou), iou >= min_iou))
    return join_pairs(found)


def best_of_frames(frames: np.ndarray, scores: np.ndarray, number: int) -> np.ndarray:
    """Mask (N,) of the highest scores of each frame; equal ones by their order."""
    order = np.lexsort((-scores, frames))
    sorted_frames = frames[order]
    rank = np.arange(len(order)) - np.searchsorted(sorted_frames, sorted_frames)
    best = np.zeros(len(order), dtype=bool)
    best[order] = rank < number
    return best


def claim_free(
    scores: np.ndarray, groups: np.ndarray, pairs: Pairs, iou_thr: float
) -> np.ndarray:
    """Right ones (N,) where a detection claims the best ground truth still free.

    The highest score claims first: of the ground truths that nobody has claimed, the
    one it overlaps most, by at least iou_thr. Source: the scripts of ACT.
    """
    rank = np.empty(len(scores), dtype=int)
    rank[by_score(scores)] = np.arange(len(scores))
    detections, gts, ious = take(pairs, pairs.ious >= iou_thr)
    order = np.lexsort((gts, -ious, rank[detections], groups[detections]))
    detections, gts = detections[order], gts[order]
    chosen = choose_in_turn(groups[detections], detections, gts)
    right = np.zeros(len(scores), dtype=bool)
    right[detections[chosen]] = True
    return right


def claim_best(
    scores: np.ndarray, groups: np.ndarray, pairs: Pairs, iou_thr: float
) -> np.ndarray:
    """Right ones (N,) where a detection claims the ground truth it overlaps most.

    Of those that claim a ground truth the highest-scoring one is right; the others are
    wrong even where they overlap a second one well. Source: Pascal VOC, AVA's and
    MultiSports' evaluators.
    """
    del groups  # a ground truth is claimed from within its group
    detections, gts, ious = take(pairs, pairs.ious >= iou_thr)
    order = np.lexsort((gts, -ious, detections))
    _, first = np.unique(detections[order], return_index=True)
    best = order[first]
    best = best[by_score(scores[detections[best]])]
    _, first = np.unique(gts[best], return_index=True)
    right = np.zeros(len(scores), dtype=bool)
    right[detections[best[first]]] = True
    return right


CLAIMS = {'free': claim_free, 'best': claim_best}


def choose_in_turn(
    groups: np.ndarray, choosers: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
    """Pairs that come about when choosers take turns, as indices in ascending order.

    The pairs (P,) are sorted by group, then by the turn of the chooser in its group,
    then by the chooser's preference. Each chooser takes the first that is free.
    """
    rest = np.arange(len(groups))
    taken = [rest[:0]]
    while len(rest):
        # The first pair left in each group comes about, whatever else does.
        is_first = first_of_runs(groups[rest])
        picks = rest[is_first]
        taken.append(picks)
        pick = picks[np.cumsum(is_first) - 1]
        free = (choosers[rest] != choosers[pick]) & (chosen[rest] != chosen[pick])
        rest = rest[free]
    return np.sort(np.concatenate(taken))


def first_of_runs(*keys: np.ndarray) -> np.ndarray:
    """Mask (N,) of where sorted keys (N,) differ from those before."""
    differs = np.zeros(max(len(keys[0]) - 1, 0), dtype=bool)
    for key in keys:
        differs |= key[1:] != key[:-1]
    return np.append(True, differs)[: len(keys[0])]


def _area(low: np.ndarray, high: np.ndarray, pixel: float) -> np.ndarray:
    """Areas (N,) between corners (N, 2), with negative sides taken as 0."""
    sides = np.maximum(high - low + pixel, 0)
    return sides[:, 0] * sides[:, 1]  # several times as fast as prod(axis=1)
