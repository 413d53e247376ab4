"""Predictions in a csv, as AVA's evaluator reads it.

A line is ``video,timestamp,x1,y1,x2,y2,action_id,score`` without a header; boxes in
[0, 1], for tubes the timestamp is the number of the frame, from 1, and an action id the
number of the label, from 1.
"""

import io
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from stmixer_mm.datasets.annotations.ava_csv import (
    TextError,
    decode_text,
    keyframe_key,
    parse_float,
    parse_id,
    remedy,
    video_message,
)
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.metrics.predictions import (
    BOX_HIGH,
    BOX_LOW,
    ConfiguredMetric,
    PlacedSample,
    box_message,
)

COLUMNS = 'video,timestamp,x1,y1,x2,y2,action_id,score'
# Of actions that no line of a csv gives to a box.
NO_SCORE = -1.0


class CsvDetections:
    """Detections of a csv: N lines, one for a box and an action."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.notes: list[str] = []
        self.keyframes: list[tuple[str, int | float]] = []
        self._keyframe_numbers: dict[tuple[str, str], int] = {}
        self._numbers: dict[str, int] = {}
        self._frames = array('l')
        self._lines = array('l')
        self._actions = array('l')
        self._bboxes = array('d')
        self._scores = array('d')

    def add(self, line: int, fields: list[str]) -> str | None:
        """Take the fields of a line, or say what is wrong with them."""
        if len(fields) != 8:
            text = ','.join(fields)
            return (
                f'it has {len(fields)} columns instead of the 8 of {COLUMNS}; '
                f'{remedy(text, "", "write these and no others")}.'
            )
        name = fields[0], fields[1]
        number = self._keyframe_numbers.get(name)
        if number is None:
            number, message = self._new_keyframe(*name)
            if message:
                return message
            self._keyframe_numbers[name] = number
        try:
            x1, y1, x2, y2 = map(parse_float, fields[2:6])
        except ValueError:
            text = ','.join(fields[2:6])
            return (
                f'the box {text!r} is not four numbers; '
                f'{remedy(text, "", "write x1,y1,x2,y2 in [0, 1]")}.'
            )
        if not (BOX_LOW <= x1 <= x2 <= BOX_HIGH and BOX_LOW <= y1 <= y2 <= BOX_HIGH):
            return box_message(x1, y1, x2, y2)
        action = parse_id(fields[6])
        if action is None or action < 1:
            return (
                f'the action id {fields[6]!r} is no whole number from 1 upwards; '
                'use the ids of the label map.'
            )
        try:
            score = parse_float(fields[7])
        except ValueError:
            score = float('nan')
        if not 0 <= score <= 1:
            return (
                f'the score {fields[7]!r} is no number from 0 to 1; remove the line '
                'or scale all scores alike.'
            )
        self._frames.append(number)
        self._lines.append(line)
        self._actions.append(action)
        self._bboxes.extend((x1, y1, x2, y2))
        self._scores.append(score)
        return None

    def __len__(self) -> int:
        return len(self._scores)

    def _new_keyframe(
        self, video: str, text: str
    ) -> tuple[int, None] | tuple[None, str]:
        """Its number, the same for 902, 0902 and 902.0, or what is wrong."""
        if message := video_message(video):
            return None, message
        try:
            timestamp = parse_float(text)
        except ValueError:
            timestamp = float('nan')
        if not 0 <= timestamp < float('inf'):
            return None, (
                f'the timestamp {text!r} is not a number from 0 upwards; '
                f'{remedy(text, text, "correct it or remove the line")}.'
            )
        key = keyframe_key(video, timestamp)
        if key not in self._numbers:
            self._numbers[key] = len(self.keyframes)
            whole = timestamp.is_integer()
            self.keyframes.append((video, int(timestamp) if whole else timestamp))
        return self._numbers[key], None

    def samples(
        self, configured: ConfiguredMetric, *, last: bool = False
    ) -> Iterator[PlacedSample]:
        """A sample for each keyframe; lines of the same box are one person.

        A line that repeats box and action of another is a person of its own.

        Raises:
            ValueError: an action id is not the model's, or none is evaluated.
        """
        del last  # A csv takes little room.
        metric, num_classes, columns, _ = configured
        if num_classes is None:
            raise UserError(
                f'{self.file} is a csv, which {type(metric).__name__} cannot evaluate; '
                'use FrameMAPMetric, TubeFrameMAPMetric or VideoMAPMetric as '
                'test_evaluator, or a dump of tools/test.py.'
            )
        actions = np.array(self._actions, dtype=int)
        known = np.array(sorted(columns))
        self._check_actions(actions, known)
        frames, lines = np.array(self._frames, int), np.array(self._lines, int)
        bboxes = np.array(self._bboxes).reshape(-1, 4)
        scores = np.array(self._scores)
        order = np.argsort(frames, kind='stable')
        bounds = np.flatnonzero(np.diff(frames[order])) + 1
        for rows in np.split(order, bounds):
            video, timestamp = self.keyframes[frames[rows[0]]]
            instances = _group_boxes(
                bboxes[rows].tolist(),
                [columns.get(action) for action in actions[rows].tolist()],
                scores[rows].tolist(),
                num_classes,
            )
            frame_key = getattr(metric, 'frame_key', 'timestamp')
            sample = {
                'video_id': video,
                frame_key: timestamp,
                'pred_instances': instances,
            }
            place = f'{self.file}, line {lines[rows[0]]}'
            yield PlacedSample(place, sample)

    def _check_actions(self, actions: np.ndarray, known: np.ndarray) -> None:
        of_model = np.isin(actions, known)
        beyond = np.flatnonzero(actions > known[-1])
        # Of custom_classes, any other id is left out.
        if len(beyond) and known[-1] == len(known):
            raise UserError(
                f'{self.file}, line {self._lines[beyond[0]]}: the action id '
                f'{actions[beyond[0]]} is unknown, as ids go up to {known[-1]} in the '
                "config's test_evaluator; correct it or the num_classes there."
            )
        if not of_model.any():
            raise UserError(
                f'{self.file}, line {self._lines[0]}: neither the action id '
                f'{actions[0]} nor that of any other line is evaluated; correct the '
                'ids or custom_classes.'
            )

    def note_repeated(self) -> None:
        """Say how many lines repeat keyframe, box and action of another."""
        bboxes = np.array(self._bboxes).reshape(-1, 4)
        keys = np.column_stack([self._frames, self._actions, bboxes])
        order = np.lexsort((self._lines, *keys.T))
        repeats = order[1:][(keys[order[1:]] == keys[order[:-1]]).all(axis=1)]
        if len(repeats):
            first = min(self._lines[row] for row in repeats)
            self.notes.append(
                f'{self.file}, line {first}: keyframe, box and action of an earlier '
                f'line are repeated ({len(repeats)} such lines); each counts as a '
                "detection of its own, as in AVA's evaluator."
            )


def read_csv(file: str | Path) -> CsvDetections:
    """Read a csv; see :func:`read_results`."""
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
        message = found.add(number, [field.strip() for field in line.split(',')])
        if message:
            raise UserError(f'{file}, line {number}: {message}')
    if not len(found):
        raise UserError(
            f'{file}, line 1: the file holds no detection; write a line of {COLUMNS} '
            'for each box and action.'
        )
    found.note_repeated()
    return found


def _group_boxes(
    bboxes: list[list[float]],
    columns: list[int | None],
    scores: list[float],
    num_classes: int,
) -> dict[str, torch.Tensor]:
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
    return dict(
        bboxes=torch.from_numpy(corners.reshape(-1, 4)), scores=torch.from_numpy(table)
    )
