"""Matching of detections and ground truths, as pure functions.

N detections, M ground truths, P pairs of them; boxes xyxy in any one unit. Pairs are of
one group (a keyframe, a video).
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np

# Models give boxes in 32 bits, and files may have gone through them.
_EPS = np.finfo(np.float32).eps
# Pairs in memory at a time.
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
    reach: np.ndarray  # (P,) float, the highest thresholds that count as reached


def take(arrays: Arrays, index: np.ndarray) -> Arrays:
    """A NamedTuple of arrays (N, ...) with the entries of an index or mask."""
    return type(arrays)(*(array[index] for array in arrays))


def join_pairs(parts: list[Pairs]) -> Pairs:
    """All pairs in one, also if there are none."""
    empty = Pairs(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros(0))
    return Pairs(*map(np.concatenate, zip(empty, *parts, strict=True)))


def aligned_iou(
    first: np.ndarray, second: np.ndarray, *, pixel: float = 0
) -> np.ndarray:
    """IoU (...) of boxes (..., 4) with boxes (..., 4), pair by pair; 0 for empty ones.

    ``pixel`` is what a box measures beyond x2 - x1: 1 if x2 is its last pixel.
    """
    low, high = np.maximum(first, second)[..., :2], np.minimum(first, second)[..., 2:]
    intersection = _area(low, high, pixel)
    areas = [_area(boxes[..., :2], boxes[..., 2:], pixel) for boxes in (first, second)]
    union = areas[0] + areas[1] - intersection
    zeros = np.zeros(union.shape)
    return np.divide(intersection, union, out=zeros, where=union > 0)


def iou_rounding(
    first: np.ndarray, second: np.ndarray, ious: np.ndarray, *, pixel: float = 0
) -> np.ndarray:
    """Error (N,) of the IoUs of boxes (N, 4) by coordinates of 32 bits.

    Where each of the eight edges may be off by d, the intersection less t times the
    union, whose sign tells whether the IoU reaches t <= 1, is off by at most d
    times the sum of their lengths. Here d is eps / 2 of the largest coordinate.
    """
    sides = [np.maximum(box[:, 2:] - box[:, :2] + pixel, 0) for box in (first, second)]
    farthest = np.maximum(
        np.maximum(first[:, 2:], second[:, 2:]),
        -np.minimum(first[:, :2], second[:, :2]),
    )
    off = _EPS * (farthest * (sides[0] + sides[1])[:, ::-1]).sum(axis=1)
    areas = sides[0].prod(axis=1) + sides[1].prod(axis=1)
    union = areas / (1 + ious)
    return np.divide(off, union, out=np.zeros(len(union)), where=union > 0)


def restore_pixels(bboxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) in pixels as they were before they were divided by the frame's size.

    Coordinates that only rounding to 32 bits took off whole pixels are whole again, others
    have nine decimals. The published evaluators stay in pixels: IoUs that equal a
    threshold or each other there are equal here too.
    """
    rounded = np.round(bboxes)
    is_whole = np.abs(bboxes - rounded) <= _EPS * np.abs(rounded)
    return np.where(is_whole, rounded, np.round(bboxes, 9))


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
        num_pairs_done = ends[done - 1] if done else 0
        stop = np.searchsorted(ends, num_pairs_done + _PAIRS_AT_ONCE, side='right')
        part = paired[done : max(stop, done + 1)]
        done += len(part)
        counts = count[part]
        first_pair = np.cumsum(counts) - counts
        offsets = np.repeat(start[part] - first_pair, counts)
        yield np.repeat(part, counts), np.arange(len(offsets)) + offsets


def frame_pairs(
    detections: Boxes, gts: Boxes, *, pixel: float = 0, min_iou: float = 0
) -> Pairs:
    """Detections and ground truths of one keyframe with an IoU that reaches min_iou.

    ``gts.frames`` must be sorted; ``pixel`` as in ``aligned_iou``.
    """
    parts = []
    for detection, gt in group_pairs(detections.frames, gts.frames):
        first, second = detections.bboxes[detection].astype(float), gts.bboxes[gt]
        ious = aligned_iou(first, second, pixel=pixel)
        reach = ious + iou_rounding(first, second, ious, pixel=pixel)
        pairs = Pairs(detection, gt, ious, reach)
        parts.append(take(pairs, reach >= min_iou))
    return join_pairs(parts)


def match(
    scores: np.ndarray,
    groups: np.ndarray,
    pairs: Pairs,
    iou_thr: float,
    *,
    matching: str,
    last_of_equal: bool = False,
) -> np.ndarray:
    """Mask (N,) of the detections that are right.

    The highest score of a group claims a ground truth first: the one that it overlaps
    most, by at least iou_thr. If that is taken, a detection is wrong (``'best'``: Pascal
    VOC, AVA's and MultiSports' evaluators) or claims the next (``'free'``: the scripts
    of ACT).

    Args:
        scores: (N,).
        groups: (N,).
        pairs: At least all pairs that reach iou_thr.
        iou_thr: IoU that a detection needs.
        matching: ``'free'`` or ``'best'``.
        last_of_equal: Of equal overlaps the last is preferred, not the first.
    """
    detections, gts, ious, _ = take(pairs, pairs.reach >= iou_thr)
    turn = detections, -scores[detections], groups[detections]
    order = np.lexsort((-gts if last_of_equal else gts, -ious, *turn))
    if matching == 'best':
        order = order[first_of_runs(detections[order])]
    detections, gts = detections[order], gts[order]
    chosen = choose_in_turn(groups[detections], detections, gts)
    right = np.zeros(len(scores), dtype=bool)
    right[detections[chosen]] = True
    return right


def count_ties(scores: np.ndarray, *groups: np.ndarray) -> int:
    """Number of scores (N,) that equal another of their group, named by keys (N,)."""
    order = np.lexsort((scores, *groups))
    is_first = first_of_runs(*(key[order] for key in (scores, *groups)))
    lengths = np.diff(np.flatnonzero(np.append(is_first, True)))
    return int(lengths[lengths > 1].sum())


def choose_in_turn(
    groups: np.ndarray, choosers: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
    """Greedy assignment: indices of the chosen pairs, ascending.

    The pairs (P,) are sorted by group, then by the turn of the chooser in its group,
    then by the chooser's preference. Each chooser takes the first that is free.
    """
    candidates = np.arange(len(groups))
    selected = [candidates[:0]]
    while len(candidates):
        # The first pair left in each group is chosen, whatever else is.
        is_first = first_of_runs(groups[candidates])
        picks = candidates[is_first]
        selected.append(picks)
        pick = picks[np.cumsum(is_first) - 1]
        has_free_chooser = choosers[candidates] != choosers[pick]
        is_free = chosen[candidates] != chosen[pick]
        candidates = candidates[has_free_chooser & is_free]
    return np.sort(np.concatenate(selected))


def first_of_runs(*keys: np.ndarray) -> np.ndarray:
    """Mask (N,) of where sorted keys (N,) differ from those before."""
    is_different = np.zeros(max(len(keys[0]) - 1, 0), dtype=bool)
    for key in keys:
        is_different |= key[1:] != key[:-1]
    return np.append(True, is_different)[: len(keys[0])]


def _area(low: np.ndarray, high: np.ndarray, pixel: float) -> np.ndarray:
    """Areas (...) between corners (..., 2), with negative sides taken as 0."""
    sides = np.maximum(high - low + pixel, 0)
    return sides[..., 0] * sides[..., 1]  # several times as fast as prod(axis=-1)
