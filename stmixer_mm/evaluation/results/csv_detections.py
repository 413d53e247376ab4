"""Predictions in a csv, as AVA's evaluator reads it.

A line is ``video,timestamp,x1,y1,x2,y2,action_id,score`` without a header; boxes in
[0, 1], for tubes the timestamp is the number of the frame, from 1, and an action id the
number of the label, from 1.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from stmixer_mm.datasets.annotations.ava_csv import (
    Fault,
    parse_lines,
    parse_moment,
    parse_number,
)
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.metrics.predictions import is_sound_box

COLUMNS = 'video,timestamp,x1,y1,x2,y2,action_id,score'
FORM = (
    f'{COLUMNS} (without quotes or a header: a timestamp from 0 upwards, an upright '
    'box and a score in [0, 1], a whole action id from 1 upwards)'
)
# Of actions that no line of a csv gives to a box.
NO_SCORE = -1.0


class RowDetections:
    """Detections of a file in rows: N of them, one for a box and an action."""

    file: str
    notes: list[str]
    row_name: str  # what messages call a row

    def rows(
        self, metric: DetectionMetric
    ) -> tuple[Sequence[tuple[str, float]], np.ndarray]:
        """Keyframes, as (video, timestamp), and a table (N, 8).

        Its columns are the number of the row in the file, that of the keyframe, the box
        in [0, 1], the action id and the score.

        Raises:
            UserError: they do not belong to the metric.
        """
        raise NotImplementedError

    def samples(
        self, metric: DetectionMetric, *, last: bool = False
    ) -> Iterator[tuple[str, dict]]:
        """Place and sample of each keyframe; rows of the same box are one person.

        A row that repeats box and action of another is a person of its own.
        """
        del last  # Rows take little room.
        keyframes, table = self.rows(metric)
        columns = {action: n for n, action in enumerate(metric.action_ids, start=1)}
        table = table[np.argsort(table[:, 1], kind='stable')]
        bounds = np.flatnonzero(np.diff(table[:, 1])) + 1
        for rows in np.split(table, bounds):
            row, keyframe = rows[0, :2]
            video, timestamp = keyframes[int(keyframe)]
            instances = _group_boxes(rows[:, 2:], columns, metric.num_classes)
            sample = dict(video_id=video, timestamp=timestamp, pred_instances=instances)
            yield self.place(row), sample

    def place(self, row: float) -> str:
        """Where a row is, for messages."""
        return f'{self.file}, {self.row_name} {row:.0f}'


class CsvDetections(RowDetections):
    """Detections of a csv: N lines, one for a box and an action.

    Accepted on purpose: lines in any order, repeated lines, boxes that leave the frame
    by up to its size or have no area, and action ids that are not evaluated.

    Raises:
        UserError: a line is of another form, or there is none.
    """

    row_name = 'line'

    def __init__(self, file: str | Path) -> None:
        self.file = str(file)
        self.notes: list[str] = []
        # Numbers of keyframes; timestamps count as by ``keyframe_key``.
        keyframes: dict[tuple[str, float], int] = {}
        rows = array('d')
        for row in parse_lines(self.file, _parse, FORM):
            if isinstance(row, Fault):
                raise UserError(str(row))
            line, video, timestamp, *numbers = row
            keyframe = keyframes.setdefault(
                (video, round(timestamp, 3)), len(keyframes)
            )
            rows.extend((line, keyframe, *numbers))
        if not rows:
            raise UserError(f'{self.file} holds no detection; write lines of {FORM}.')
        table = np.frombuffer(rows).reshape(-1, 8)
        self._keyframes, self._table = list(keyframes), table
        self._lines, self._actions = table[:, 0], table[:, 6]
        self._note_repeats(table[:, 1:7])

    def rows(
        self, metric: DetectionMetric
    ) -> tuple[Sequence[tuple[str, float]], np.ndarray]:
        # An action id may not be the metric's, or none is evaluated.
        self._check_actions(metric.action_ids)
        return self._keyframes, self._table

    def _note_repeats(self, keys: np.ndarray) -> None:
        """``keys`` (N, 6) are keyframe, box and action."""
        order = np.lexsort((self._lines, *keys.T))
        repeats = order[1:][(keys[order[1:]] == keys[order[:-1]]).all(axis=1)]
        if len(repeats):
            self.notes.append(
                f'{self.place(self._lines[repeats].min())}: keyframe, box and action '
                f'of an earlier line are repeated ({len(repeats)} such lines); each '
                "counts as a detection of its own, as in AVA's evaluator."
            )

    def _check_actions(self, known: Sequence[int]) -> None:
        unknown = np.flatnonzero(~np.isin(self._actions, known))
        # Of custom_classes, other ids are left out.
        is_subset = max(known) > len(known) and len(unknown) < len(self._actions)
        if len(unknown) and not is_subset:
            raise UserError(
                f'{self.place(self._lines[unknown[0]])}: the action id '
                f'{self._actions[unknown[0]]:g} is unknown to test_evaluator, whose '
                f'ids go up to {max(known)}; correct it, or the label map or '
                'custom_classes there.'
            )


def _parse(number: int, line: str) -> tuple[int | str | float, ...]:
    """The number of a line and its fields.

    Raises:
        ValueError: it is of another form.
    """
    video, timestamp, *fields = line.split(',')
    *bbox, action, score = numbers = [parse_number(field) for field in fields]
    if not is_sound_box(*bbox):
        raise ValueError('the box is {:g}, {:g}, {:g}, {:g}'.format(*bbox))
    if not (action >= 1 and action.is_integer() and 0 <= score <= 1):
        raise ValueError(f'the action id is {action:g}, the score {score:g}')
    return number, *parse_moment(video, timestamp), *numbers


def _group_boxes(
    rows: np.ndarray, columns: Mapping[int, int], num_classes: int
) -> dict[str, np.ndarray]:
    """``bboxes`` (n, 4) and ``scores`` (n, num_classes) of a keyframe.

    Args:
        rows: (m, 6), box, action id and score of each line.
        columns: Action id -> column of the scores; other actions are left out.
        num_classes: Columns with that of the dummy.
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
