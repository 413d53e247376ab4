"""Predictions in rows, one for each box and action: AVA's csv, frame_detections."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from stmixer_mm.datasets.annotations.ava_csv import (
    Fault,
    parse_lines,
    parse_moment,
    parse_number,
)
from stmixer_mm.errors import UserError, blame
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.metrics.tube_metric import TubeMetric

COLUMNS = 'video,timestamp,x1,y1,x2,y2,action_id,score'
FORM = (
    f'{COLUMNS} (without quotes or a header: a timestamp from 0 upwards, an upright '
    'box and a score in [0, 1], a whole action id from 1 upwards)'
)
FRAME_FORM = (
    'video_index, frame_number, label_index, score, x1, y1, x2, y2 (whole indices from 0 '
    'and frames from 1, a score in [0, 1], an upright box in pixels)'
)
NO_SCORE = -1.0  # of actions that no row gives to a box


class Results:
    """Predictions in a file, as samples for metrics."""

    metric_type = BaseMetric  # metrics that take them
    score_thr: float | None = None  # of a metric that sets none

    def __init__(self, file: str | Path) -> None:
        self.file = str(file)

    def samples(self, metric: BaseMetric) -> Iterator[tuple[str, dict]]:
        """Place in the file and sample of each keyframe or video."""
        raise NotImplementedError


class RowDetections(Results):
    """Boxes with an action each; rows of a keyframe with the same box are one person."""

    metric_type = DetectionMetric
    score_thr = NO_SCORE
    row_name = 'row'

    def rows(
        self, metric: DetectionMetric
    ) -> tuple[Sequence[tuple[str, float]], np.ndarray]:
        """Keyframes (video, timestamp), and a table (N, 8) of the detections.

        Its columns are the number of the row, that of the keyframe, box in [0, 1],
        action id and score.
        """
        raise NotImplementedError

    def samples(self, metric: DetectionMetric) -> Iterator[tuple[str, dict]]:
        columns = {action: n for n, action in enumerate(metric.action_ids, start=1)}
        keyframes, table = self.rows(metric)
        table = table[np.argsort(table[:, 1], kind='stable')]
        bounds = np.flatnonzero(np.diff(table[:, 1])) + 1
        for rows in np.split(table, bounds):
            row, keyframe = rows[0, :2].astype(int)
            video, timestamp = keyframes[keyframe]
            found = _group_boxes(rows[:, 2:], columns, metric.num_classes)
            sample = dict(video_id=video, timestamp=timestamp, pred_instances=found)
            yield f'{self.file}, {self.row_name} {row}', sample


class CsvDetections(RowDetections):
    """Detections of a csv, as AVA's evaluator reads it; see ``FORM``.

    For tubes the timestamp is the number of the frame, and the action id that of the
    label, both from 1. Accepted on purpose: lines in any order, repeated lines (each
    counts, as in AVA's evaluator), boxes that leave the frame by up to its size or have
    no area, and action ids that are not evaluated.
    """

    row_name = 'line'

    def __init__(self, file: str | Path) -> None:
        super().__init__(file)
        # Numbers of keyframes; timestamps count as by ``keyframe_key``.
        keyframes: dict[tuple[str, float], int] = {}
        rows = array('d')
        for row in parse_lines(self.file, _parse, FORM):
            if isinstance(row, Fault):
                raise UserError(str(row))
            line, video, timestamp, *numbers = row
            key = video, round(timestamp, 3)
            rows.extend((line, keyframes.setdefault(key, len(keyframes)), *numbers))
        if not rows:
            raise UserError(f'{self.file} has no detection; write lines of {FORM}.')
        self._rows = list(keyframes), np.frombuffer(rows).reshape(-1, 8)

    def rows(
        self, metric: DetectionMetric
    ) -> tuple[Sequence[tuple[str, float]], np.ndarray]:
        return self._rows


class FrameDetections(RowDetections):
    """``frame_detections.pkl`` of MultiSports: an array (N, 8), or a list of its rows.

    The scripts of MOC write it too. The indices are of ``test_videos`` and ``labels`` of
    the ground truth; see ``FRAME_FORM``.
    """

    metric_type = TubeMetric

    def __init__(self, file: str | Path, content: Any) -> None:
        super().__init__(file)
        subject = f'{file} has neither the samples of a test run nor frame_detections'
        with blame(subject, f'write an array of rows of {FRAME_FORM}'):
            self._table = table = np.asarray(content, dtype=float)
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
            if table[:, 4:].max() <= 1:
                raise ValueError('all boxes lie within one pixel')

    def rows(self, metric: TubeMetric) -> tuple[Sequence[tuple[str, int]], np.ndarray]:
        names, num_labels = metric.listed_videos, len(metric.action_ids)
        videos, frames, labels = self._table[:, :3].T.astype(int)
        if videos.max() >= len(names) or labels.max() >= num_labels:
            raise UserError(
                f'{self.file} has indices up to {videos.max()} of videos and '
                f'{labels.max()} of labels, but the ground truth has {len(names)} videos '
                f'and {num_labels} labels; give that of the tested dataset and split.'
            )
        scales = metric.scales[[metric.video_numbers[name] for name in names]]
        keys, numbers = np.unique(
            np.column_stack([videos, frames]), axis=0, return_inverse=True
        )
        keyframes = [(names[video], frame) for video, frame in keys.tolist()]
        rows = np.arange(1, len(videos) + 1)
        bboxes, scores = self._table[:, 4:] / scales[videos], self._table[:, 3]
        columns = rows, numbers.ravel(), bboxes, labels + 1, scores
        return keyframes, np.column_stack(columns)


def _parse(number: int, line: str) -> tuple[int | str | float, ...]:
    """The number of a line and its fields; raises ``ValueError`` for another form."""
    video, timestamp, *fields = line.split(',')
    *bbox, action, score = numbers = [parse_number(field) for field in fields]
    x1, y1, x2, y2 = bbox
    # Detectors' boxes may leave the frame, but by no more than its size.
    if not (-1 <= x1 <= x2 <= 2 and -1 <= y1 <= y2 <= 2):
        raise ValueError('the box is {:g}, {:g}, {:g}, {:g}'.format(*bbox))
    if not (action >= 1 and action.is_integer() and 0 <= score <= 1):
        raise ValueError(f'the action id is {action:g}, the score {score:g}')
    return number, *parse_moment(video, timestamp), *numbers


def _group_boxes(
    rows: np.ndarray, columns: Mapping[int, int], num_classes: int
) -> dict[str, np.ndarray]:
    """``bboxes`` (n, 4) and ``scores`` (n, num_classes) of box, action and score (m, 6).

    ``columns`` are those of the scores by action id; other actions are left out. A row
    that repeats box and action of another is a person of its own.
    """
    persons: dict[tuple, np.ndarray] = defaultdict(
        lambda: np.full(num_classes, NO_SCORE)
    )
    repeats: Counter = Counter()
    for *bbox, action, score in rows.tolist():
        if action in columns:
            key = (*bbox, action)
            persons[(*bbox, repeats[key])][columns[action]] = score
            repeats[key] += 1
    bboxes = np.reshape([person[:4] for person in persons], (-1, 4))
    scores = np.reshape([*persons.values()], (-1, num_classes))
    return dict(bboxes=bboxes, scores=scores)
