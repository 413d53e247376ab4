"""Results: predictions in a file; those in rows, one for each box and action."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.evaluator import BaseMetric

from stmixer_mm.datasets.annotations.ava_csv import (
    parse_moment,
    parse_number,
    right_lines,
)
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.functional.average_precision import by_score
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric

COLUMNS = 'video,timestamp,x1,y1,x2,y2,action_id,score'
FORM = (
    f'{COLUMNS} (without quotes or a header: a timestamp from 0 upwards, an upright '
    'box and a score in [0, 1], a whole action id from 1 upwards)'
)
NO_SCORE = -1.0  # of actions that no row gives to a box


class Results(NamedTuple):
    """Predictions in a file, as samples for metrics."""

    file: str
    metric_type: type[BaseMetric]  # metrics that take them
    # Place in the file and sample of each keyframe or video, for a metric.
    samples: Callable[[BaseMetric], Iterator[tuple[str, dict]]]
    score_thr: float | None = None  # of a metric that sets none


Reader = Callable[[Path, Any], Results | None]
RESULT_READERS: list[Reader] = []  # of forms beside dumps and csv files


def result_reader(reader: Reader) -> Reader:
    """Decorator of a function (path, content) that reads a form of results.

    The content is that of a pickle, None for a folder or any other file. Of another form
    the function returns None, and the one that was registered before it is asked.
    """
    RESULT_READERS.insert(0, reader)
    return reader


class Rows(NamedTuple):
    """Boxes with an action each."""

    keyframes: Sequence[tuple[str, float]]  # video and timestamp
    # (N, 8): number of the row, of the keyframe, box in [0, 1], action id, score.
    table: np.ndarray


def csv_results(file: str) -> Results:
    """Detections of a csv, see :func:`read_rows`."""
    rows = read_rows(file)

    def samples(metric: DetectionMetric) -> Iterator[tuple[str, dict]]:
        return row_samples(lambda line: f'{file}, line {line}', rows, metric)

    return Results(file, DetectionMetric, samples, NO_SCORE)


def read_rows(file: str) -> Rows:
    """Detections of a csv, as AVA's evaluator reads it; see ``FORM``.

    For tubes the timestamp is the number of the frame, and the action id that of the
    label, both from 1. Accepted on purpose: lines in any order, repeated lines (each
    counts, as in AVA's evaluator), boxes that leave the frame by up to its size or have
    no area, and action ids that are not evaluated.
    """
    # Numbers of keyframes; timestamps count as by ``keyframe_key``.
    keyframes: dict[tuple[str, float], int] = {}
    table = array('d')
    for line, video, timestamp, *numbers in right_lines(file, _parse, FORM):
        key = video, round(timestamp, 3)
        table.extend((line, keyframes.setdefault(key, len(keyframes)), *numbers))
    if not table:
        raise UserError(f'{file} has no detection; write lines of {FORM}.')
    return Rows(list(keyframes), np.frombuffer(table).reshape(-1, 8))


def row_samples(
    place: Callable[[int], str], rows: Rows, metric: DetectionMetric
) -> Iterator[tuple[str, dict]]:
    """Place and sample of each keyframe; rows of the same box are one person.

    ``place`` names a row of a number.
    """
    table = rows.table[np.argsort(rows.table[:, 1], kind='stable')]
    for part in np.split(table, np.flatnonzero(np.diff(table[:, 1])) + 1):
        row, keyframe = part[0, :2].astype(int)
        video, timestamp = rows.keyframes[keyframe]
        instances = _group_boxes(part[:, 2:], metric.num_classes)
        sample = dict(video_id=video, timestamp=timestamp, pred_instances=instances)
        yield place(row), sample


def _parse(number: int, line: str) -> tuple[int | str | float, ...]:
    """The number of a line and its fields; raises ``ValueError`` for another form."""
    video, timestamp, *fields = line.split(',')
    *bbox, action, score = numbers = [parse_number(field) for field in fields]
    x1, y1, x2, y2 = bbox
    # Detectors' boxes may leave the frame, but by no more than its size.
    if not (-1 <= x1 <= x2 <= 2 and -1 <= y1 <= y2 <= 2):
        raise ValueError('the box is {:g}, {:g}, {:g}, {:g}'.format(*bbox))
    if not (action >= 1 and action.is_integer()):
        raise ValueError(f'the action id is {action:g}')
    if not 0 <= score <= 1:
        raise ValueError(
            f'the score is {score:g}; scores that are logits s become 1 / (1 + exp(-s))'
        )
    return number, *parse_moment(video, timestamp), *numbers


def _group_boxes(rows: np.ndarray, num_classes: int) -> dict[str, np.ndarray]:
    """``bboxes`` (n, 4) and ``scores`` (n, num_classes) of box, action and score (m, 6).

    Other actions are left out. A row that repeats box and action of another is a person
    of its own, who has the best scores of all actions that are left.
    """
    persons: dict[tuple, np.ndarray] = defaultdict(
        lambda: np.full(num_classes, NO_SCORE)
    )
    repeats: Counter = Counter()
    ranks = np.zeros(len(rows), dtype=int)  # of a row among those that it repeats
    for row in by_score(rows[:, -1]).tolist():
        key = tuple(rows[row, :-1].tolist())
        ranks[row] = repeats[key]
        repeats[key] += 1
    for rank, (*bbox, action, score) in zip(ranks, rows.tolist(), strict=True):
        if action < num_classes:
            persons[(*bbox, rank)][int(action)] = score
    bboxes = np.reshape([person[:4] for person in persons], (-1, 4))
    scores = np.reshape([*persons.values()], (-1, num_classes))
    return dict(bboxes=bboxes, scores=scores)
