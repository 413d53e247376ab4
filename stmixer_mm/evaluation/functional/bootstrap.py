"""How sure an AP is: bootstrap over test videos, as pure functions.

N detections of a class, R of them right; V videos, D draws. Detections are matched once;
a draw weighs the videos, as if each were there so many times.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from stmixer_mm.evaluation.functional.average_precision import CLASS_AVERAGES

_VALUES_AT_ONCE = 1_000_000  # of R draws in memory


class Judged(NamedTuple):
    """Matched detections of a class, from the highest score to the lowest."""

    right: np.ndarray  # (N,) bool
    videos: np.ndarray  # (N,) int
    gts: np.ndarray  # (V,) int, ground truths in each video


def draw_videos(num_videos: int, *, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """How often (V, D) each video is in draws of V videos with replacement."""
    shares = np.full(num_videos, 1 / num_videos)
    return np.random.default_rng(seed).multinomial(num_videos, shares, draws).T


def weighted_aps(
    judged: Judged, weights: np.ndarray, *, mode: str, extra_gts: float = 0
) -> np.ndarray:
    """AP (D,) in each draw, NaN without ground truth.

    It equals ``average_precision`` of the repeated detections, of which equal ones follow
    each other.

    Args:
        judged: Detections of a class.
        weights: (V, D) int.
        mode: A name of ``AP_MODES``.
        extra_gts: As in ``Protocol``.
    """
    right, videos, gts = judged
    rank = np.flatnonzero(right)
    # Wrong ones before each right one, and after the last.
    wrong = np.flatnonzero(~right)
    before = np.searchsorted(rank, wrong)
    shape = len(rank) + 1, len(gts)
    gaps = csr_array((np.ones(len(wrong)), (before, videos[wrong])), shape=shape)
    size = max(_VALUES_AT_ONCE // (len(rank) + 1), 1)
    aps = []
    for start in range(0, weights.shape[1], size):
        some = weights[:, start : start + size].astype(float)
        num_gts = gts @ some
        num_gts = np.where(num_gts > 0, num_gts + extra_gts, np.nan)
        areas = _areas(some[videos[rank]], gaps @ some, num_gts, mode)
        aps.append(areas / num_gts)
    return np.concatenate(aps)


def _areas(
    hits: np.ndarray, gaps: np.ndarray, num_gts: np.ndarray, mode: str
) -> np.ndarray:
    """Areas (D,) under precision over the number of ground truths found.

    Args:
        hits: (R, D) how often each right detection is there.
        gaps: (R + 1, D) wrong ones since the last right one.
        num_gts: (D,).
        mode: A name of ``AP_MODES``.
    """
    found, false = hits.cumsum(axis=0), gaps.cumsum(axis=0)
    total = found + false[:-1]
    after = _ratio(found, total, 0)
    if mode != 'interpolated':
        before = _ratio(found - hits, total - hits, 1)
    if mode == 'act':
        # Of k further hits, found / total + ... is k less false (1 / total + ...).
        harmonic = np.append(0, np.cumsum(1 / np.arange(1, total.max(initial=0) + 1)))
        total, earlier = total.astype(int), (total - hits).astype(int)
        heights = hits - false[:-1] * (harmonic[total] - harmonic[earlier])
        return (heights - (after - before) / 2 * (hits > 0)).sum(axis=0)
    # Precision rises along the copies of a hit, so that all have the envelope of the last.
    envelope = np.maximum.accumulate(after[::-1], axis=0)[::-1]
    areas = (hits * envelope).sum(axis=0)
    if mode == 'yolo':
        rises = np.maximum(before - envelope, 0) * (hits > 0)
        in_all = hits.sum(axis=0)
        last = _ratio(in_all, in_all + false[-1], 0)
        areas += rises.sum(axis=0) / 2 + last * (num_gts - in_all) / 2
    return areas


def _ratio(part: np.ndarray, whole: np.ndarray, empty: float) -> np.ndarray:
    return np.divide(
        part, whole, out=np.full(part.shape, float(empty)), where=whole > 0
    )


def weighted_means(
    classes: list[Judged],
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
    aps = np.array(
        [weighted_aps(one, weights, mode=mode, extra_gts=extra_gts) for one in classes]
    )
    num_gts = np.array([one.gts for one in classes]) @ weights
    per_video = [np.bincount(one.videos, minlength=len(weights)) for one in classes]
    counted = CLASS_AVERAGES[over](num_gts, np.array(per_video) @ weights)
    values = np.where(counted & ~np.isnan(aps), aps, 0)
    return values.sum(axis=0) / np.maximum(counted.sum(axis=0), 1), aps


def interval(values: np.ndarray, *, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the values (D,) of draws, those that are NaN left out.

    Of the difference of two results in the same draws, one that holds 0 is no more
    than noise.
    """
    tail = 50 * (1 - level)
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)
