"""Average precision from right and wrong detections, as pure functions.

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
    'all': lambda num_gts, num_detections: np.full(np.shape(num_gts), True),
}

# Heights of the area under a curve (N,) over recall that starts at (0, start): (N,) at the
# detections, and one from the last of them to recall 1.
AP_MODES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    # The envelope that never rises: Pascal VOC from 2010 on, AVA's evaluator,
    # MultiSports' evaluate_multisports.py.
    'interpolated': lambda curve, start: np.append(envelope(curve), 0),
    # Trapezoids: ``pr_to_ap`` of the scripts of the action tubelet detector (Kalogeiton
    # et al., ICCV 2017), which MOC and MultiSports' evaluate.py use too.
    'act': lambda curve, start: np.append(_trapezoids(curve, start), 0),
    # Trapezoids under the envelope, which falls to (1, 0): the evaluators of YOLO, which
    # YOWOFormer and YOWOv3 took over.
    'yolo': lambda curve, start: _trapezoids(np.append(envelope(curve), 0), start),
}


def average_precision(right: np.ndarray, num_gts: float, *, mode: str) -> float:
    """Area under precision over recall; NaN without ground truth, 0 without detections.

    Args:
        right: (N,) bool.
        num_gts: M.
        mode: A name of ``AP_MODES``.
    """
    return area(precision(right), right, num_gts, mode=mode, start=1.0)


def area(
    curve: np.ndarray,
    right: np.ndarray,
    num_gts: float,
    *,
    mode: str,
    start: float = 0.0,
) -> float:
    """Area under a curve (N,) over recall, see ``average_precision``."""
    if not num_gts:
        return float('nan')
    if not len(curve):
        return 0.0
    heights = AP_MODES[mode](curve, start)
    missed = num_gts - right.sum()
    return float((heights[:-1][right].sum() + heights[-1] * missed) / num_gts)


def _trapezoids(curve: np.ndarray, start: float) -> np.ndarray:
    return (curve + np.append(start, curve[:-1])) / 2


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
        raise UserError(f'iou_thrs is empty; {form}.')
    return parsed


def _thresholds(
    first: float, last: float | None = None, step: float = 0.05
) -> tuple[float, ...]:
    count = 1 if last is None else round((last - first) / step) + 1
    values = tuple(first + step * i for i in range(count))
    reaches_end = last is None or abs(values[-1] - last) < 1e-6
    if not (reaches_end and 0 < first <= values[-1] <= 1):
        raise ValueError(f'not ascending to the last number in steps of {step:g}')
    return values


def over_thresholds(
    value_at: Callable[[float], float], iou_thrs: Mapping[str, Sequence[float]]
) -> list[float]:
    """Means of a value over the thresholds of each name of ``parse_iou_thrs``."""
    single = {thr for thrs in iou_thrs.values() for thr in thrs}
    values = {thr: value_at(thr) for thr in single}
    return [float(np.mean([values[thr] for thr in thrs])) for thrs in iou_thrs.values()]
