"""Predictions in a csv, as AVA's evaluator reads it.

A line is ``video,timestamp,x1,y1,x2,y2,action_id,score`` without a header; boxes in
[0, 1], for tubes the timestamp is the number of the frame, from 1, and an action id the
number of the label, from 1.
"""

import io
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from stmixer_mm.datasets.annotations.ava_csv import (
    TextError,
    decode_text,
    parse_float,
    remedy,
    video_message,
)
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.results.sound_boxes import box_message, faulty_boxes

COLUMNS = 'video,timestamp,x1,y1,x2,y2,action_id,score'
# Of actions that no line of a csv gives to a box.
NO_SCORE = -1.0


class CsvDetections:
    """Detections of a csv: N lines, one for a box and an action.

    Accepted on purpose: lines in any order, repeated lines, boxes that leave the frame
    by up to its size or have no area, and action ids that are not evaluated.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.notes: list[str] = []
        # Numbers of keyframes; timestamps are told apart as by ``keyframe_key``.
        self.keyframes: dict[tuple[str, float], int] = {}
        # Numbers of the line, its keyframe, x1, y1, x2, y2, action and score.
        self._rows = array('d')

    def __len__(self) -> int:
        return len(self._rows) // 8

    def add(self, number: int, line: str) -> None:
        """Take a line, or raise ``UserError`` that says what is wrong with it."""
        video, *fields = line.split(',')
        if len(fields) != 7:
            raise UserError(
                f'it has {len(fields) + 1} columns instead of the 8 of {COLUMNS}; '
                f'{remedy(line, "", "write these and no others")}.'
            )
        numbers = []
        for field in fields:
            try:
                numbers.append(parse_float(field))
            except ValueError:
                what_to_do = remedy(line, field, 'correct it or remove the line')
                raise UserError(
                    f'{field.strip()!r} is not a number; {what_to_do}.'
                ) from None
        keyframe = video.strip(), round(numbers[0], 3)
        if keyframe not in self.keyframes:
            _check_keyframe(*keyframe)
            self.keyframes[keyframe] = len(self.keyframes)
        self._rows.extend((number, self.keyframes[keyframe], *numbers[1:]))

    def check(self) -> None:
        """Refuse numbers that cannot be, and note repeated lines."""
        lines, keyframes, bboxes, actions, scores = self._columns()
        self._refuse(
            np.flatnonzero(~((scores >= 0) & (scores <= 1))),
            lambda row: (
                f'the score {scores[row]:g} is not in [0, 1]; remove the line '
                'or scale all scores alike.'
            ),
        )
        self._refuse(
            np.flatnonzero(~((actions >= 1) & (actions % 1 == 0))),
            lambda row: (
                f'the action id {actions[row]:g} is not a whole number from 1 '
                'upwards; use the ids of the label map.'
            ),
        )
        self._refuse(faulty_boxes(bboxes), lambda row: box_message(bboxes[row]))
        keys = np.column_stack([keyframes, actions, bboxes])
        order = np.lexsort((lines, *keys.T))
        repeats = order[1:][(keys[order[1:]] == keys[order[:-1]]).all(axis=1)]
        if len(repeats):
            self.notes.append(
                f'{self._place(lines[repeats].min())}: keyframe, box and action of an '
                f'earlier line are repeated ({len(repeats)} such lines); each counts as '
                "a detection of its own, as in AVA's evaluator."
            )

    def samples(
        self, metric: DetectionMetric, *, last: bool = False
    ) -> Iterator[tuple[str, dict]]:
        """Place and sample of each keyframe; lines of the same box are one person.

        A line that repeats box and action of another is a person of its own.

        Raises:
            ValueError: an action id is not the model's, or none is evaluated.
        """
        del last  # A csv takes little room.
        lines, keyframes, bboxes, actions, scores = self._columns()
        columns = {action: n for n, action in enumerate(metric.action_ids, start=1)}
        self._check_actions(actions, list(columns))
        order = np.argsort(keyframes, kind='stable')
        bounds = np.flatnonzero(np.diff(keyframes[order])) + 1
        names = list(self.keyframes)
        for rows in np.split(order, bounds):
            video, timestamp = names[int(keyframes[rows[0]])]
            instances = _group_boxes(
                bboxes[rows].tolist(),
                [columns.get(action) for action in actions[rows].tolist()],
                scores[rows].tolist(),
                metric.num_classes,
            )
            sample = {
                'video_id': video,
                metric.frame_key: timestamp,
                'pred_instances': instances,
            }
            yield self._place(lines[rows[0]]), sample

    def _columns(self) -> tuple[np.ndarray, ...]:
        """Lines (N,), keyframes (N,), boxes (N, 4), actions (N,) and scores (N,)."""
        rows = np.frombuffer(self._rows).reshape(-1, 8)
        return rows[:, 0], rows[:, 1], rows[:, 2:6], rows[:, 6], rows[:, 7]

    def _place(self, line: float) -> str:
        return f'{self.file}, line {line:.0f}'

    def _refuse(self, rows: np.ndarray, message: Callable[[int], str]) -> None:
        """Raise ``UserError`` for the first of the rows, if there are any."""
        if len(rows):
            place = self._place(self._columns()[0][rows[0]])
            raise UserError(f'{place}: {message(rows[0])}')

    def _check_actions(self, actions: np.ndarray, known: Sequence[int]) -> None:
        last, is_known = max(known), np.isin(actions, known)
        # Of custom_classes, any other id is left out.
        if last == len(known):
            self._refuse(
                np.flatnonzero(actions > last),
                lambda row: (
                    f'the action id {actions[row]:g} is unknown, as ids go up '
                    f"to {last} in the config's test_evaluator; correct it or the label "
                    'map there.'
                ),
            )
        self._refuse(
            np.arange(0 if is_known.any() else len(actions)),
            lambda row: (
                f'neither the action id {actions[row]:g} nor that of any other '
                'line is evaluated; correct the ids or custom_classes.'
            ),
        )


def read_csv(file: str | Path) -> CsvDetections:
    """Read a csv; see :func:`~stmixer_mm.evaluation.results.offline.read_results`."""
    data = Path(file).read_bytes()
    if data.startswith(b'\x80'):
        raise UserError(f'{file} is a pickle, not a csv; let its name end in .pkl.')
    try:
        text = decode_text(data)
    except TextError as error:
        raise UserError(f'{file}, line {error.line}: {error}') from error
    found = CsvDetections(str(file))
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if not line.strip():
            continue
        try:
            found.add(number, line)
        except UserError as error:
            raise UserError(f'{file}, line {number}: {error}') from error
    if not len(found):
        raise UserError(
            f'{file}, line 1: the file holds no detection; write a line of {COLUMNS} '
            'for each box and action.'
        )
    found.check()
    return found


def _check_keyframe(video: str, timestamp: float) -> None:
    if message := video_message(video):
        raise UserError(message)
    if not 0 <= timestamp < float('inf'):
        raise UserError(
            f'the timestamp {timestamp:g} is not a number from 0 upwards; correct it or '
            'remove the line.'
        )


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
