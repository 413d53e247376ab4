"""Predictions in a csv, as AVA's evaluator reads it.

A line is ``video,timestamp,x1,y1,x2,y2,action_id,score`` without a header; boxes in
[0, 1], for tubes the timestamp is the number of the frame, from 1, and an action id the
number of the label, from 1.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from stmixer_mm.datasets.annotations.ava_csv import (
    Fault,
    check_columns,
    parse_float,
    parse_lines,
    parse_moment,
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


class CsvDetections:
    """Detections of a csv: N lines, one for a box and an action.

    Accepted on purpose: lines in any order, repeated lines, boxes that leave the frame
    by up to its size or have no area, and action ids that are not evaluated.

    Raises:
        UserError: a line is of another form, or there is none.
    """

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
        self._keyframes = list(keyframes)
        self._lines, self._keyframe = table[:, 0], table[:, 1]
        self._bboxes, self._actions, self._scores = (
            table[:, 2:6],
            table[:, 6],
            table[:, 7],
        )
        self._note_repeats(table[:, 1:7])

    def samples(
        self, metric: DetectionMetric, *, last: bool = False
    ) -> Iterator[tuple[str, dict]]:
        """Place and sample of each keyframe; lines of the same box are one person.

        A line that repeats box and action of another is a person of its own.

        Raises:
            UserError: an action id is not the metric's, or none is evaluated.
        """
        del last  # A csv takes little room.
        self._check_actions(metric.action_ids)
        columns = {action: n for n, action in enumerate(metric.action_ids, start=1)}
        order = np.argsort(self._keyframe, kind='stable')
        bounds = np.flatnonzero(np.diff(self._keyframe[order])) + 1
        for rows in np.split(order, bounds):
            video, timestamp = self._keyframes[int(self._keyframe[rows[0]])]
            instances = _group_boxes(
                self._bboxes[rows].tolist(),
                [columns.get(action) for action in self._actions[rows].tolist()],
                self._scores[rows].tolist(),
                metric.num_classes,
            )
            sample = dict(video_id=video, timestamp=timestamp, pred_instances=instances)
            yield self._place(self._lines[rows[0]]), sample

    def _place(self, line: float) -> str:
        return f'{self.file}, line {line:.0f}'

    def _note_repeats(self, keys: np.ndarray) -> None:
        """``keys`` (N, 6) are keyframe, box and action."""
        order = np.lexsort((self._lines, *keys.T))
        repeats = order[1:][(keys[order[1:]] == keys[order[:-1]]).all(axis=1)]
        if len(repeats):
            self.notes.append(
                f'{self._place(self._lines[repeats].min())}: keyframe, box and action '
                f'of an earlier line are repeated ({len(repeats)} such lines); each '
                "counts as a detection of its own, as in AVA's evaluator."
            )

    def _check_actions(self, known: Sequence[int]) -> None:
        unknown = np.flatnonzero(~np.isin(self._actions, known))
        # Of custom_classes, other ids are left out.
        is_subset = max(known) > len(known) and len(unknown) < len(self._actions)
        if len(unknown) and not is_subset:
            raise UserError(
                f'{self._place(self._lines[unknown[0]])}: the action id '
                f'{self._actions[unknown[0]]:g} is unknown to test_evaluator, whose '
                f'ids go up to {max(known)}; correct it, or the label map or '
                'custom_classes there.'
            )


def _parse(number: int, line: str) -> tuple[int | str | float, ...]:
    """The number of a line and its fields.

    Raises:
        ValueError: it is of another form.
    """
    check_columns(line, 8)
    video, timestamp, *fields = line.split(',')
    *bbox, action, score = numbers = [parse_float(field) for field in fields]
    if not is_sound_box(*bbox):
        raise ValueError('the box is {:g}, {:g}, {:g}, {:g}'.format(*bbox))
    if not (action >= 1 and action.is_integer() and 0 <= score <= 1):
        raise ValueError(f'the action id is {action:g}, the score {score:g}')
    return number, *parse_moment(video, timestamp), *numbers


def _group_boxes(
    bboxes: list[list[float]],
    columns: list[int | None],
    scores: list[float],
    num_classes: int,
) -> dict[str, np.ndarray]:
    """``bboxes`` (n, 4) and ``scores`` (n, num_classes) of the lines of a keyframe."""
    persons: dict[tuple, int] = {}
    repeats: Counter = Counter()
    cells = []
    for bbox, column, score in zip(bboxes, columns, scores, strict=True):
        if column is None:
            continue
        key = (*bbox, column)
        person = persons.setdefault((*bbox, repeats[key]), len(persons))
        repeats[key] += 1
        cells.append((person, column, score))
    table = np.full((len(persons), num_classes), NO_SCORE)
    for person, column, score in cells:
        table[person, column] = score
    corners = np.array([key[:4] for key in persons])
    return dict(bboxes=corners.reshape(-1, 4), scores=table)
