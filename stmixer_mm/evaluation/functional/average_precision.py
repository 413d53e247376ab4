"""From right and wrong detections to average precision, as pure functions.

N detections of one class, from the highest score to the lowest; M ground truths.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stmixer_mm.errors import UserError, blame

# Which classes a mean is taken over: those with ground truth, as in AVA's and
# MultiSports' evaluators; those that also have a detection, as in mmaction2's
# AVAMetric; or all, of which those without ground truth count as 0, as ACT's scripts
# divide by the number of labels.
CLASS_AVERAGES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    'gt': lambda num_gts, num_detections: num_gts > 0,
    'detected': lambda num_gts, num_detections: (num_gts > 0) & (num_detections > 0),
    'all': lambda num_gts, num_detections: np.full(len(num_gts), True),
}


def interpolated_ap(right: np.ndarray, num_gts: int) -> float:
    """Exact area under the precision that never falls with recall.

    Source: Pascal VOC from 2010 on, AVA's evaluator, MultiSports'
    evaluate_multisports.py.

    Args:
        right: (N,) bool.
        num_gts: M, at least 1.
    """
    return interpolated_area(precision(right), right, num_gts)


def act_ap(right: np.ndarray, num_gts: int) -> float:
    """Area under the raw precision, by trapezoids that start at (recall 0, 1).

    Source: ``pr_to_ap`` of the scripts of the action tubelet detector (Kalogeiton et
    al., ICCV 2017), which MOC and MultiSports' evaluate.py use too.

    Args:
        right: (N,) bool.
        num_gts: M, at least 1.
    """
    return act_area(precision(right), right, num_gts, start=1.0)


def interpolated_area(curve: np.ndarray, right: np.ndarray, num_gts: int) -> float:
    """Area under the envelope of a curve (N,) over recall."""
    return float(envelope(curve)[right].sum() / num_gts)


def act_area(
    curve: np.ndarray, right: np.ndarray, num_gts: int, *, start: float = 0.0
) -> float:
    """Area under a curve (N,) over recall, by trapezoids that start at (0, start)."""
    means = (curve + np.concatenate([[start], curve[:-1]])) / 2
    return float(means[right].sum() / num_gts)


AP_MODES: dict[str, Callable[[np.ndarray, int], float]] = {
    'interpolated': interpolated_ap,
    'act': act_ap,
}
# Under the shares of error types.
AREAS: dict[str, Callable[[np.ndarray, np.ndarray, int], float]] = {
    'interpolated': interpolated_area,
    'act': act_area,
}


def envelope(curve: np.ndarray) -> np.ndarray:
    """The lowest curve (N,) above a curve (N,) that never rises."""
    return np.maximum.accumulate(curve[::-1])[::-1]


def precision(right: np.ndarray) -> np.ndarray:
    """Share of right ones (N,) among the first 1, 2, ... detections."""
    return np.cumsum(right) / np.arange(1, len(right) + 1)


def by_score(scores: np.ndarray) -> np.ndarray:
    """Order (N,) from the highest score to the lowest; equal ones keep their order."""
    return np.argsort(-scores, kind='stable')


def class_mean(
    aps: np.ndarray, num_gts: np.ndarray, num_detections: np.ndarray, *, over: str
) -> np.ndarray:
    """Mean (...) of the APs (K, ...) of K classes; 0 where no class counts.

    Args:
        aps: NaN for classes without ground truth.
        num_gts: (K,) ground truths of each class.
        num_detections: (K,) detections of each class.
        over: One of ``CLASS_AVERAGES``.
    """
    counted = CLASS_AVERAGES[over](num_gts, num_detections)
    if not counted.any():
        return np.zeros(aps.shape[1:])
    return np.where(np.isnan(aps), 0, aps)[counted].mean(axis=0)


def parse_iou_thrs(
    thrs: float | str | Sequence[float | str],
) -> dict[str, tuple[float, ...]]:
    """Name -> IoU thresholds whose APs are averaged.

    >>> parse_iou_thrs([0.5, '0.1:0.3:0.1'])
    {'0.5': (0.5,), '0.1:0.3:0.1': (0.1, 0.2, 0.30000000000000004)}

    Args:
        thrs: A threshold in (0, 1], a range as ``'0.5:0.95'`` (in steps of 0.05) or
            ``'0.1:0.9:0.1'``, both ends included, or some of these.

    Raises:
        UserError: one is neither, or there is none.
    """
    is_one = isinstance(thrs, str) or np.ndim(thrs) == 0
    form = "write numbers in (0, 1] or ranges, as '0.5:0.95' or '0.1:0.9:0.1'"
    parsed = {}
    for thr in [thrs] if is_one else thrs:
        with blame(f'iou_thrs has {thr!r}', form):
            name = thr if isinstance(thr, str) else f'{thr:g}'
            parsed[name] = _thresholds(*map(float, str(thr).split(':')))
    if not parsed:
        raise UserError('iou_thrs is empty; give at least one IoU threshold.')
    return parsed


def first_threshold(iou_thrs: Mapping[str, Sequence[float]]) -> float:
    """The one that pictures and error types are of; of a range its first."""
    return next(iter(iou_thrs.values()))[0]


def over_thresholds(
    value_at: Callable[[float], float], iou_thrs: Mapping[str, Sequence[float]]
) -> list[float]:
    """Means of a value over the thresholds of each name of ``parse_iou_thrs``."""
    single = {thr for thrs in iou_thrs.values() for thr in thrs}
    values = {thr: value_at(thr) for thr in single}
    return [float(np.mean([values[thr] for thr in thrs])) for thrs in iou_thrs.values()]


def _thresholds(
    first: float, last: float | None = None, step: float = 0.05
) -> tuple[float, ...]:
    count = 1 if last is None else round((last - first) / step) + 1
    values = tuple(first + step * i for i in range(min(count, 101)))
    if count > 100 or not values or not 0 < first <= values[-1] <= 1:
        raise ValueError('not 1 to 100 ascending thresholds in (0, 1]')
    if last is not None and abs(values[-1] - last) > 1e-6:
        raise ValueError(f'steps of {step:g} do not reach the last number')
    return values
