"""What is wrong with the detections of a class: error types of boxes and of tubes.

N detections of one class; classes, frames and videos are numbers, boxes xyxy in pixels.
Of boxes they are those of Kalogeiton et al., Action tubelet detector for spatio-temporal
action localization, ICCV 2017, by the rules of ``frameAP_error`` in the scripts of MOC
(Li et al., ECCV 2020), which took them from there; of tubes those of MultiSports (Li et
al., ICCV 2021), by the rules of its VideomAP_error.py and of ``videoAP_error`` in its
evaluate_multisports.py, which differ as their protocols do.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from stmixer_mm.evaluation.functional.average_precision import AP_MODES, AREAS
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.evaluation.functional.tubes import Overlaps

RIGHT, LOCALISATION, CLASSIFICATION, TIME, OTHER = range(5)


class ErrorShares(NamedTuple):
    """Shares of a class of boxes; they add up to 1."""

    ap: float
    localisation: float
    classification: float
    time: float
    other: float
    missed: float


class TubeErrorShares(NamedTuple):
    """Shares of a class of tubes; by ACT's area they add up to 1."""

    ap: float
    repeat: float
    extra: float
    localisation: float
    classification: float
    time: float
    classification_time: float
    classification_localisation: float
    time_localisation: float
    classification_time_localisation: float
    missed: float


Shares = TypeVar('Shares', ErrorShares, TubeErrorShares)


def error_types(
    right: np.ndarray,
    has_gt: np.ndarray,
    has_other: np.ndarray,
    on_other: np.ndarray,
    video_has_gt: np.ndarray,
) -> np.ndarray:
    """The type (N,) of each detection, the first of these that holds:

    right; localisation: its frame shows its class (also when somebody else has
    claimed that ground truth); classification: it lies on another class;
    other: its frame shows only other classes, elsewhere; time: its video shows its
    class in other frames; other.

    Args:
        right: (N,) bool.
        has_gt: (N,) bool, the frame has ground truth of the class.
        has_other: (N,) bool, the frame has ground truth of another class.
        on_other: (N,) bool, the detection overlaps that enough.
        video_has_gt: (N,) bool, the video has ground truth of the class.
    """
    types = np.full(len(right), OTHER)
    types[video_has_gt] = TIME
    types[has_other] = OTHER
    types[on_other] = CLASSIFICATION
    types[has_gt] = LOCALISATION
    types[right] = RIGHT
    return types


def tube_error_types(
    right: np.ndarray, own: Overlaps, other: Overlaps, iou_thr: float
) -> np.ndarray:
    """The type (N,) of each tube, its place in ``TubeErrorShares``; the first that holds:

    right; repeat: it overlaps a tube of its class enough, which another has claimed;
    classification: it overlaps one of another class enough; extra: it overlaps none at
    all. Of the others the tube that it overlaps most tells: the class is wrong if that
    is of another one, the time if the spans overlap too little, the localisation if the
    boxes do. Where both overlap by sqrt(iou_thr) the whole does enough, so that each has
    this threshold; of equal overlaps that with its class tells, which the published
    scripts leave to the order of the labels.

    Args:
        right: (N,) bool.
        own: (N,), best overlaps with tubes of the class, whether claimed or not.
        other: (N,), with those of all other classes.
        iou_thr: What makes a tube right.
    """
    is_own = own.ious >= other.ious
    nearest = Overlaps(*np.where(is_own, own, other))
    in_time, in_place = np.stack(nearest[1:]) >= math.sqrt(iou_thr)
    number = TubeErrorShares._fields.index
    cases = {
        'ap': right,
        'repeat': own.ious >= iou_thr,
        'classification': other.ious >= iou_thr,
        'extra': nearest.ious == 0,
        'localisation': is_own & in_time,
        'time': is_own & in_place,
        'time_localisation': is_own,
        'classification_localisation': in_time,
        'classification_time': in_place,
    }
    rest = number('classification_time_localisation')
    return np.select([*cases.values()], [*map(number, cases)], rest)


def error_shares(
    types: np.ndarray,
    num_gts: int,
    shares: type[Shares] = ErrorShares,
    ap_mode: str = 'act',
) -> Shares:
    """AP and errors of one class.

    Each error type is the area under its share of the detections over recall, by ACT's
    rule from 0 at no recall on; missed is what recall lacks to 1. By ACT's rule they
    add up to 1 with AP. Under ``'interpolated'`` each share has an envelope of its own,
    as in evaluate_multisports.py, so that they add up to more.

    Args:
        types: (N,) of the detections by descending score, places in ``shares``.
        num_gts: Ground truths of the class, at least 1.
        shares: What the types are of.
        ap_mode: A name of ``AP_MODES``.
    """
    right = types == RIGHT
    ranks = np.arange(1, len(types) + 1)
    areas = [
        AREAS[ap_mode](np.cumsum(types == number) / ranks, right, num_gts)
        for number in range(1, len(shares._fields) - 1)
    ]
    missed = float(1 - right.sum() / num_gts)
    return shares(AP_MODES[ap_mode](right, num_gts), *areas, missed)


def mean_shares(shares: Mapping[str, Shares]) -> Shares:
    """Mean over the classes."""
    kind = type(next(iter(shares.values())))
    return kind(*np.mean(list(shares.values()), axis=0).tolist())


def format_error_table(shares: Mapping[str, Shares]) -> str:
    """A text table in percent, one line per class, the mean last."""
    mean = mean_shares(shares)
    rows = {**shares, 'mean': mean}
    percents = [[name, *(100.0 * value for value in row)] for name, row in rows.items()]
    return format_table([['', *mean._fields], *percents], digits=2)
