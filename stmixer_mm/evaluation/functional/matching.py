"""Which detections are right: pairing detections with ground truths, as pure functions.

N detections, M ground truths, P pairs of them; boxes xyxy in any one unit. Things of
one group (a class in a keyframe, a class in a video) can be paired.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from stmixer_mm.evaluation.functional.average_precision import by_score

# So many pairs are looked at in one go, which bounds the memory.
_PAIRS_AT_ONCE = 500_000


class Pairs(NamedTuple):
    """Detections and ground truths of the same group that overlap."""

    detections: np.ndarray  # (P,) int
    truths: np.ndarray  # (P,) int
    ious: np.ndarray  # (P,) float


class BestMatch(NamedTuple):
    """For each detection the ground truth of its group that it overlaps most."""

    index: np.ndarray  # (N,) int, -1 where it is paired with none
    iou: np.ndarray  # (N,) float, 0 there


def aligned_iou(
    first: np.ndarray, second: np.ndarray, *, pixel: float = 0
) -> np.ndarray:
    """IoU (N,) of boxes (N, 4) with boxes (N, 4), pair by pair; 0 for empty ones.

    ``pixel`` is what a box measures beyond x2 - x1: 1 where x2 names the last pixel
    that belongs to it, in pixels.
    """
    low = np.maximum(first[:, :2], second[:, :2])
    high = np.minimum(first[:, 2:], second[:, 2:])
    intersection = _product(high - low + pixel)
    union = _area(first, pixel) + _area(second, pixel) - intersection
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


def claim_free(
    scores: np.ndarray, groups: np.ndarray, pairs: Pairs, iou_thr: float
) -> np.ndarray:
    """Right ones (N,) where a detection claims the best ground truth still free.

    The highest score claims first: of the ground truths that nobody has claimed, the
    one it overlaps most, by at least iou_thr. Source: the scripts of ACT.
    """
    rank = np.empty(len(scores), dtype=int)
    rank[by_score(scores)] = np.arange(len(scores))
    kept = np.flatnonzero(pairs.ious >= iou_thr)
    detections, truths = pairs.detections[kept], pairs.truths[kept]
    order = np.lexsort(
        (truths, -pairs.ious[kept], rank[detections], groups[detections])
    )
    detections, truths = detections[order], truths[order]
    chosen = choose_in_turn(groups[detections], detections, truths)
    right = np.zeros(len(scores), dtype=bool)
    right[detections[chosen]] = True
    return right


def best_matches(pairs: Pairs, num_detections: int) -> BestMatch:
    """The first of the ground truths that each of N detections overlaps most."""
    index = np.full(num_detections, -1)
    iou = np.zeros(num_detections)
    if not len(pairs.detections):
        return BestMatch(index, iou)
    if (np.diff(pairs.detections) < 0).any():
        order = np.argsort(pairs.detections, kind='stable')
        pairs = Pairs(*(field[order] for field in pairs))
    paired, start = np.unique(pairs.detections, return_index=True)
    best = np.maximum.reduceat(pairs.ious, start)
    count = np.diff(np.append(start, len(pairs.ious)))
    is_best = np.flatnonzero(pairs.ious == np.repeat(best, count))
    _, first = np.unique(pairs.detections[is_best], return_index=True)
    index[paired] = pairs.truths[is_best[first]]
    iou[paired] = best
    return BestMatch(index, iou)


def first_claims(scores: np.ndarray, matches: BestMatch, iou_thr: float) -> np.ndarray:
    """Right ones (N,): of those that claim a ground truth the highest-scoring one.

    A detection claims its best match, if it overlaps it by at least iou_thr.
    """
    claiming = np.flatnonzero((matches.index >= 0) & (matches.iou >= iou_thr))
    claiming = claiming[by_score(scores[claiming])]
    _, first = np.unique(matches.index[claiming], return_index=True)
    right = np.zeros(len(scores), dtype=bool)
    right[claiming[first]] = True
    return right


def claim_best(
    scores: np.ndarray, groups: np.ndarray, pairs: Pairs, iou_thr: float
) -> np.ndarray:
    """Right ones (N,) where a detection claims the ground truth it overlaps most.

    Further claims of a ground truth are wrong even where they overlap a second one
    well. Source: Pascal VOC, AVA's and MultiSports' evaluators.
    """
    del groups  # a ground truth is claimed from within its group
    return first_claims(scores, best_matches(pairs, len(scores)), iou_thr)


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
        group = groups[rest]
        is_first = np.append(True, group[1:] != group[:-1])
        picks = rest[is_first]
        taken.append(picks)
        pick = picks[np.cumsum(is_first) - 1]
        free = (choosers[rest] != choosers[pick]) & (chosen[rest] != chosen[pick])
        rest = rest[free]
    return np.sort(np.concatenate(taken))


def _area(bboxes: np.ndarray, pixel: float) -> np.ndarray:
    return _product(bboxes[:, 2:] - bboxes[:, :2] + pixel)


def _product(sides: np.ndarray) -> np.ndarray:
    """Areas (N,) of sides (N, 2), negative ones taken as 0."""
    sides = np.maximum(sides, 0)
    return sides[:, 0] * sides[:, 1]  # several times as fast as prod(axis=1)
