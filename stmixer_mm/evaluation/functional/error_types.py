"""What is wrong with the detections of a class: ACT's five error types.

N detections of one class; classes, frames and videos are numbers, boxes xyxy in pixels.
Source: the error analysis of Kalogeiton et al., Action tubelet detector for
spatio-temporal action localization, ICCV 2017, by the rules of ``frameAP_error`` in the
scripts of MOC (Li et al., ECCV 2020), which took them from there.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from stmixer_mm.evaluation.functional.average_precision import act_ap, act_area
from stmixer_mm.evaluation.functional.tables import format_table

RIGHT, LOCALISATION, CLASSIFICATION, TIME, OTHER = range(5)


class ErrorShares(NamedTuple):
    """Shares of a class; they add up to 1."""

    ap: float
    localisation: float
    classification: float
    time: float
    other: float
    missed: float


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


def error_shares(types: np.ndarray, num_gts: int) -> ErrorShares:
    """AP and errors of one class, which add up to 1.

    AP is the area under precision and recall by ACT's rule; each error type is
    that under its share of the detections, from 0 at no recall on; missed is what
    recall lacks to 1.

    Args:
        types: (N,) of the detections by descending score.
        num_gts: Ground truths of the class, at least 1.
    """
    right = types == RIGHT
    ranks = np.arange(1, len(types) + 1)
    areas = [
        act_area(np.cumsum(types == number) / ranks, right, num_gts, start=0.0)
        for number in (LOCALISATION, CLASSIFICATION, TIME, OTHER)
    ]
    return ErrorShares(act_ap(right, num_gts), *areas, float(1 - right.sum() / num_gts))


def mean_shares(shares: Mapping[str, ErrorShares]) -> ErrorShares:
    """Mean over the classes."""
    return ErrorShares(*np.mean(list(shares.values()), axis=0).tolist())


def format_error_table(shares: Mapping[str, ErrorShares]) -> str:
    """A text table in percent, one line per class, the mean last."""
    rows = {**shares, 'mean': mean_shares(shares)}
    percents = [[name, *(100.0 * value for value in row)] for name, row in rows.items()]
    return format_table([['', *ErrorShares._fields], *percents], digits=2)
