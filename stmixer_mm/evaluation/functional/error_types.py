"""What is wrong with the detections of a class: ACT's five kinds of errors.

N detections of one class; classes, frames and videos are numbers, boxes xyxy in pixels.
Source: the error analysis of Kalogeiton et al., Action tubelet detector for
spatio-temporal action localization, ICCV 2017, by the rules of ``frameAP_error`` in the
scripts of MOC (Li et al., ECCV 2020), which took them from there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stmixer_mm.evaluation.functional.average_precision import act_ap, act_area
from stmixer_mm.files import atomic_path

RIGHT, LOCALISATION, CLASSIFICATION, TIME, OTHER = range(5)


class ErrorShares(NamedTuple):
    """Shares of a class; they add up to 1."""

    ap: float
    localisation: float
    classification: float
    time: float
    other: float
    missed: float


COLORS = {
    'ap': '#4c9f70',
    'localisation': '#e3a857',
    'classification': '#c8553d',
    'time': '#588b8b',
    'other': '#93748a',
    'missed': '#b8b8b8',
}


def error_kinds(
    right: np.ndarray,
    has_truth: np.ndarray,
    has_other: np.ndarray,
    other_iou: np.ndarray,
    video_has_truth: np.ndarray,
    *,
    iou_thr: float,
) -> np.ndarray:
    """The kind (N,) of each detection, the first of these that holds:

    right; localisation: its frame shows its class (also when somebody else has
    claimed that ground truth); classification: it lies on another class by iou_thr;
    other: its frame shows only other classes, elsewhere; time: its video shows its
    class in other frames; other.

    Args:
        right: (N,) bool.
        has_truth: (N,) bool, the frame has ground truth of the class.
        has_other: (N,) bool, the frame has ground truth of another class.
        other_iou: (N,) the best IoU with that; 0 without any.
        video_has_truth: (N,) bool, the video has ground truth of the class.
        iou_thr: IoU from which on a box lies on another.
    """
    kinds = np.full(len(right), OTHER)
    kinds[video_has_truth] = TIME
    kinds[has_other] = OTHER
    kinds[has_other & (other_iou >= iou_thr)] = CLASSIFICATION
    kinds[has_truth] = LOCALISATION
    kinds[right] = RIGHT
    return kinds


def error_shares(kinds: np.ndarray, num_truths: int) -> ErrorShares:
    """AP and errors of one class, which add up to 1.

    AP is the area under precision and recall by ACT's rule; each kind of error is
    that under its share of the detections, from 0 at no recall on; missed is what
    recall lacks to 1.

    Args:
        kinds: (N,) of the detections by descending score.
        num_truths: Ground truths of the class, at least 1.
    """
    right = kinds == RIGHT
    ranks = np.arange(1, len(kinds) + 1)
    areas = [
        act_area(np.cumsum(kinds == kind) / ranks, right, num_truths, start=0.0)
        for kind in (LOCALISATION, CLASSIFICATION, TIME, OTHER)
    ]
    return ErrorShares(
        act_ap(right, num_truths), *areas, float(1 - right.sum() / num_truths)
    )


def mean_shares(shares: Mapping[str, ErrorShares]) -> ErrorShares:
    """Mean over the classes."""
    return ErrorShares(*np.mean(list(shares.values()), axis=0).tolist())


def format_error_table(shares: Mapping[str, ErrorShares]) -> str:
    """A text table in percent, one line per class, the mean last."""
    rows = {**shares, 'mean': mean_shares(shares)}
    width = max(map(len, rows))
    heads = ''.join(f'{name:>16}' for name in ErrorShares._fields)
    lines = [
        f'{name:<{width}}' + ''.join(f'{100 * value:16.2f}' for value in row)
        for name, row in rows.items()
    ]
    return '\n'.join([f'{"":<{width}}{heads}', *lines])


def draw_errors(shares: Mapping[str, ErrorShares], path: str | Path) -> None:
    """Draw a bar per class and one for the mean, in shares, to an image file."""
    # Without pyplot there is no global state, and no display is looked for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = {**shares, 'mean': mean_shares(shares)}
    figure = Figure(figsize=(8, 1.2 + 0.25 * len(rows)), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    left = np.zeros(len(rows))
    for field, color in COLORS.items():
        widths = np.array([getattr(row, field) for row in rows.values()])
        name = 'AP' if field == 'ap' else field
        axes.barh(list(rows), widths, left=left, color=color, label=name)
        left += widths
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel('share')
    axes.legend(ncols=3, loc='lower center', bbox_to_anchor=(0.5, 1.0), frameon=False)
    with atomic_path(path) as part:
        figure.savefig(part, dpi=120)
