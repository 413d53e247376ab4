"""Boxes in rows with the numbers or names of videos: MultiSports' frame_detections."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from stmixer_mm.errors import UserError, blame
from stmixer_mm.evaluation.metrics.tube_metric import TubeMetric
from stmixer_mm.evaluation.results.rows import (
    NO_SCORE,
    Results,
    Rows,
    result_reader,
    row_samples,
)

FORM = (
    'video_index, frame_number, label_index, score, x1, y1, x2, y2 (whole indices from 0 '
    'and frames from 1, a score in [0, 1], an upright box in pixels)'
)


@result_reader
def frame_results(path: Path, content: Any) -> Results | None:
    """``frame_detections.pkl`` of MultiSports: an array (N, 8), or a list of its rows.

    The scripts of MOC write it too. The indices are of ``test_videos`` and ``labels``
    of the ground truth; see ``FORM``.
    """
    first = next(iter(content), {}) if isinstance(content, list) else content
    if first is None or isinstance(first, Mapping):
        return None
    subject = f'{path} has neither the samples of a test run nor frame_detections'
    with blame(subject, f'write an array of rows of {FORM}'):
        table = np.asarray(content, dtype=float)
        if table.shape[1:] != (8,) or not len(table):
            raise ValueError(f'its shape is {table.shape}, not (n, 8)')
        is_right = (
            np.isfinite(table).all(axis=1)
            & (table[:, :3] % 1 == 0).all(axis=1)
            & (table[:, :4] >= (0, 1, 0, 0)).all(axis=1)
            & (table[:, :4] <= (2**31, 2**31, 2**31, 1)).all(axis=1)
            & (table[:, 4:6] <= table[:, 6:]).all(axis=1)
        )
        if not is_right.all():
            raise ValueError(f'row {is_right.argmin() + 1} is another')
    names = attrgetter('listed_videos')
    return row_results(path, table, lambda row: f'{path}, row {row}', names)


def row_results(
    path: Path,
    table: np.ndarray,
    place: Callable[[int], str],
    names: Callable[[TubeMetric], Sequence[str]],
    *,
    size: int | None = None,
) -> Results:
    """Boxes of frames with a label each as results; all count, whatever their score.

    Args:
        path: Of the results.
        table: (N, 8): number of the video, frame from 1, label from 0, score, box.
        place: Of a row in the file, by its number from 1.
        names: Of the videos, by number.
        size: w and h of the frames; None: those of the videos.
    """
    videos, frames, labels = table[:, :3].T.astype(int)
    if table[:, 4:].max() <= 1:
        raise UserError(f'{path} has no box of more than one pixel; write pixels.')

    def samples(metric: TubeMetric) -> Iterator[tuple[str, dict]]:
        video_names, num_labels = names(metric), metric.num_classes - 1
        if videos.max() >= len(video_names):
            raise UserError(
                f'{path} has indices up to {videos.max()} of videos, but the ground '
                f'truth has {len(video_names)} videos; give that of the tested dataset '
                'and split.'
            )
        if labels.max() >= num_labels:
            raise UserError(
                f'{place(labels.argmax() + 1)}: the label is out of range for the '
                f'{num_labels} labels of the ground truth; give that of the tested '
                'dataset.'
            )
        sizes = size
        if size is None:  # those of unknown videos do not count
            numbers = [metric.video_numbers.get(name, 0) for name in video_names]
            sizes = metric.scales[numbers][videos]
        limit = frames.max() + 1
        keys, places = np.unique(videos * limit + frames, return_inverse=True)
        keyframes = [(video_names[key // limit], key % limit) for key in keys.tolist()]
        bboxes, scores = table[:, 4:] / sizes, table[:, 3]
        columns = np.arange(1, len(videos) + 1), places, bboxes, labels + 1, scores
        return row_samples(place, Rows(keyframes, np.column_stack(columns)), metric)

    return Results(str(path), TubeMetric, samples, NO_SCORE)
