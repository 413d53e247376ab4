"""Confidence intervals of AP: bootstrap over test videos, as pure functions.

N detections of a class, R of them right; V videos, D draws. Detections are matched once;
a draw weighs each video by the number of times it was drawn.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from stmixer_mm.evaluation.functional.average_precision import CLASS_AVERAGES

_CHUNK_SIZE = 64  # right detections in memory, for all draws


class MatchedDetections(NamedTuple):
    """Matched detections of a class, from the highest score to the lowest."""

    right: np.ndarray  # (N,) bool
    videos: np.ndarray  # (N,) int
    gts: np.ndarray  # (V,) int, ground truths in each video


def draw_videos(num_videos: int, *, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Counts (V, D) of each video in D draws of V videos with replacement."""
    shares = np.full(num_videos, 1 / num_videos)
    return np.random.default_rng(seed).multinomial(num_videos, shares, draws).T


def weighted_aps(
    detections: MatchedDetections,
    weights: np.ndarray,
    *,
    mode: str,
    extra_gts: float = 0,
) -> np.ndarray:
    """AP (D,) in each draw, NaN without ground truth.

    It equals ``average_precision`` of the repeated detections, of which equal ones follow
    each other.

    Args:
        detections: Detections of a class.
        weights: (V, D) int.
        mode: A name of ``AP_MODES``.
        extra_gts: As in ``Protocol``.
    """
    weights = weights.astype(float, order='C')  # rows are added
    num_gts = detections.gts @ weights
    num_gts = np.where(num_gts > 0, num_gts + extra_gts, np.nan)
    areas, envelope = np.zeros((2, weights.shape[1]))
    counts = _count(detections.videos, weights)
    # Sums of 1 / n.
    harmonic = np.append(0, np.cumsum(1 / np.arange(1, counts.max(initial=0) + 1)))
    if mode == 'yolo':  # from the last detection to recall 1
        right = _count(detections.videos[detections.right], weights)
        areas += right / np.maximum(counts, 1) * (num_gts - right) / 2
    for hits, earlier, false in _right_detections(detections, weights):
        total_hits = earlier + hits
        precision = _precision(total_hits, false)
        earlier_precision = _precision(earlier, false)
        if mode == 'act':
            # Of k further hits, hits / total + ... is k less false (1 / total + ...).
            sums = harmonic[(total_hits + false).astype(int)]
            sums -= harmonic[(earlier + false).astype(int)]
            areas += (hits - false * sums - (precision - earlier_precision) / 2).sum(0)
            continue
        # Precision rises along the copies of a hit: all have the envelope of the last.
        for row in precision[::-1]:
            envelope = np.maximum(envelope, row, out=row)
        areas += (hits * precision).sum(axis=0)
        if mode == 'yolo':
            areas += np.maximum(earlier_precision - precision, 0).sum(axis=0) / 2
    return areas / num_gts


def _precision(hits: np.ndarray, false: np.ndarray) -> np.ndarray:
    """Precision, 1 before the first detection."""
    total = hits + false
    return (hits + (total == 0)) / np.maximum(total, 1)


def _count(videos: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Numbers (D,) of detections in each draw, of N detections in these videos."""
    return np.bincount(videos, minlength=len(weights)) @ weights


def _right_detections(
    detections: MatchedDetections, weights: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The right detections of a class, R at a time, the lowest scores first.

    Yields:
        (R, D) copies of each detection, right ones before it, and wrong ones before it.
    """
    right, videos, _ = detections
    rank, wrong = np.flatnonzero(right), np.flatnonzero(~right)
    next_hits = np.searchsorted(rank, wrong)  # the first right detection after it
    shape = len(rank) + 1, len(weights)
    gaps = csr_array((np.ones(len(wrong)), (next_hits, videos[wrong])), shape=shape)
    num_right = _count(videos[rank], weights)
    num_wrong = _count(videos[wrong[next_hits < len(rank)]], weights)
    for stop in range(len(rank), 0, -_CHUNK_SIZE):
        chunk = slice(max(stop - _CHUNK_SIZE, 0), stop)
        hits, gap_sizes = weights[videos[rank[chunk]]], gaps[chunk] @ weights
        earlier, false = np.empty_like(hits), np.empty_like(hits)
        for row in reversed(range(len(hits))):
            num_right = np.subtract(num_right, hits[row], out=earlier[row])
            false[row] = num_wrong
            num_wrong = num_wrong - gap_sizes[row]
        yield hits, earlier, false


def weighted_means(
    classes: list[MatchedDetections],
    weights: np.ndarray,
    *,
    mode: str,
    over: str,
    extra_gts: float = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean AP (D,) over K classes in each draw, 0 where none counts, and APs (K, D).

    Args:
        classes: K of them, of the same videos.
        weights: (V, D) int.
        mode: A name of ``AP_MODES``.
        over: A name of ``CLASS_AVERAGES``.
        extra_gts: As in ``Protocol``.
    """
    options = dict(mode=mode, extra_gts=extra_gts)
    aps = np.array(
        [weighted_aps(detections, weights, **options) for detections in classes]
    )
    num_gts = np.array([detections.gts for detections in classes]) @ weights
    per_video = [
        np.bincount(detections.videos, minlength=len(weights)) for detections in classes
    ]
    counted = CLASS_AVERAGES[over](num_gts, np.array(per_video) @ weights)
    values = np.where(counted & ~np.isnan(aps), aps, 0)
    return values.sum(axis=0) / np.maximum(counted.sum(axis=0), 1), aps


def interval(values: np.ndarray, *, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the values (D,) of draws, those that are NaN left out.

    If the interval of a difference, in the same draws, holds 0, the difference is noise.
    """
    tail = 50 * (1 - level)
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)
