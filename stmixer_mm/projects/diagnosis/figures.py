"""Figures of a metric: AP of the classes, error types."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stmixer_mm.files import atomic_path
from stmixer_mm.projects.diagnosis.error_types import Shares, mean_shares
from stmixer_mm.projects.diagnosis.judging import ClassResult

COLORS = {
    'ap': '#4c9f70',
    'repeat': '#9dbf9e',
    'extra': '#93748a',
    'localisation': '#e3a857',
    'classification': '#c8553d',
    'time': '#588b8b',
    'classification_time': '#7a3b2e',
    'classification_localisation': '#e08e79',
    'time_localisation': '#a9c6d9',
    'classification_time_localisation': '#4a4e69',
    'other': '#93748a',
    'missed': '#b8b8b8',
}


def draw_class_aps(found: Sequence[ClassResult], path: str | Path) -> None:
    """Draw a bar per class, the worst on top, with its ground truths and detections."""
    figure = _figure(8, 1 + 0.22 * len(found))
    axes = figure.add_subplot()
    rows = np.arange(len(found))
    axes.barh(rows, [result.ap for result in found], color=COLORS['ap'])
    axes.set_yticks(rows, [result.name for result in found], fontsize=8)
    for row, result in enumerate(found):
        text = f'{result.ap:.3f}, {result.gts} gts, {result.detected} found'
        axes.text(result.ap + 0.01, row, text, va='center', fontsize=7)
    axes.set(ylim=(len(found) - 0.4, -0.6), xlim=(0, 1.45), xlabel='AP')
    axes.set_xticks(np.arange(0, 1.01, 0.2))
    axes.spines[['top', 'right']].set_visible(False)
    _save(figure, path)


def draw_errors(shares: Mapping[str, Shares], path: str | Path) -> None:
    """Draw a bar of error types per class, and one for their mean."""
    mean = mean_shares(shares)
    rows = {**shares, 'mean': mean}
    figure = _figure(8, 0.8 + 0.07 * len(mean) + 0.25 * len(rows))
    axes = figure.add_subplot()
    left = np.zeros(len(rows))
    for field, widths in zip(mean._fields, np.array([*rows.values()]).T, strict=True):
        name = 'AP' if field == 'ap' else field.replace('_', ', ')
        axes.barh(list(rows), widths, left=left, color=COLORS[field], label=name)
        left += widths
    axes.invert_yaxis()
    axes.set(xlim=(0, max(1, *left)), xlabel='share')  # of envelopes the sum is more
    axes.legend(ncols=3, loc='lower center', bbox_to_anchor=(0.5, 1.0), frameon=False)
    _save(figure, path)


def _figure(width: float, height: float) -> Any:
    # Without pyplot there is no global state, and no display is looked for.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout='constrained')


def _save(figure: Any, path: str | Path) -> None:
    with atomic_path(path) as part:
        figure.savefig(part, dpi=110)
