"""Predictions as MultiSports publishes them, in ``frame_detections.pkl``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stmixer_mm.errors import UserError, blame
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.metrics.tube_metrics import TubeMetric
from stmixer_mm.evaluation.results.csv_detections import RowDetections

FORM = (
    'video_index, frame_number, label_index, score, x1, y1, x2, y2 (whole indices from 0 '
    'and frames from 1, a score in [0, 1], an upright box in pixels)'
)


class FrameDetections(RowDetections):
    """An array (N, 8), or a list of its rows, as the scripts of MOC write it too.

    The indices are of ``test_videos`` and ``labels`` of the ground truth.

    Raises:
        UserError: it is something else, or a row is of another form.
    """

    row_name = 'row'

    def __init__(self, file: str | Path, content: Any) -> None:
        self.file = str(file)
        self.notes = []
        subject = f'{file} holds neither the samples of a test run nor frame_detections'
        with blame(subject, f'write an array of rows of {FORM}'):
            self._table = np.asarray(content, dtype=float)
            if self._table.shape[1:] != (8,) or not len(self._table):
                raise ValueError(f'its shape is {self._table.shape}, not (n, 8)')
        scores, bboxes = self._table[:, 3], self._table[:, 4:]
        whole = self._table[:, :3]
        is_right = (
            np.isfinite(self._table).all(axis=1)
            & (whole == np.round(whole)).all(axis=1)
            & (whole >= (0, 1, 0)).all(axis=1)
            & (whole < 2**31).all(axis=1)
            & (scores >= 0)
            & (scores <= 1)
            & (bboxes[:, :2] <= bboxes[:, 2:]).all(axis=1)
        )
        self._refuse(~is_right, f'is not {FORM}; correct or remove it.')
        if bboxes.max() <= 1:
            raise UserError(
                f'{file}: all boxes lie within one pixel; multiply them by width and '
                'height, if they are in [0, 1].'
            )

    def rows(
        self, metric: DetectionMetric
    ) -> tuple[Sequence[tuple[str, float]], np.ndarray]:
        if not isinstance(metric, TubeMetric):
            raise UserError(
                f'{self.file} numbers the videos and labels of tubes, which '
                f'{type(metric).__name__} of test_evaluator does not have; use '
                'TubeFrameMAPMetric or VideoMAPMetric.'
            )
        names = metric.listed_videos
        videos, frames, labels = self._table[:, :3].T.astype(int)
        num_labels = len(metric.action_ids)
        self._refuse(
            (videos >= len(names)) | (labels >= num_labels),
            f'has an index that the ground truth of {type(metric).__name__} lacks, of '
            f'{len(names)} videos and {num_labels} labels; give that of the tested '
            'dataset and split.',
        )
        scales = metric.scales[[metric.video_numbers[name] for name in names]]
        limit = frames.max() + 1
        numbers, keyframes = np.unique(videos * limit + frames, return_inverse=True)
        rows = np.arange(1, len(videos) + 1)
        bboxes, scores = self._table[:, 4:] / scales[videos], self._table[:, 3]
        table = np.column_stack([rows, keyframes, bboxes, labels + 1, scores])
        return [(names[n // limit], n % limit) for n in numbers.tolist()], table

    def _refuse(self, wrong: np.ndarray, why: str) -> None:
        if wrong.any():
            row = wrong.argmax()
            values = ', '.join(f'{value:g}' for value in self._table[row])
            raise UserError(f'{self.place(row + 1)}: {values} {why}')
