"""Detection files of TubeR: a text file of each rank, a line for each query.

Source: ``validate_tuber_ucf_detection`` of utils/video_action_recognition.py, which
writes ``<rank>.txt`` and ``GT_<rank>.txt``; evaluates/evaluate_ucf.py, which reads
them; and datasets/jhmdb_frame.py, which names and resizes the frames.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from stmixer_mm.datasets.annotations.ava_csv import parse_number, right_lines
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.metrics.tube_metric import TubeMetric
from stmixer_mm.evaluation.results.rows import NO_SCORE, Results, result_reader
from stmixer_mm.files import check_file

FORM = (
    "'<video>-<frame> [x1, y1, x2, y2, scores]' (frames from 0 upwards, a box in pixels of "
    'the resized frame, a score in [0, 1] for each label and for background)'
)
SHORT_SIDE = 224  # of resized frames: IMG_SIZE of its configuration for JHMDB
_RANK = re.compile(r'\d+\.txt')
_LINE = re.compile(r'(.+)-(\d+) \[(.*)\]\s*')
Query = tuple[str, np.ndarray]  # place, box and scores


@result_reader
def tuber_results(path: Path, content: Any) -> Results | None:
    """``<rank>.txt`` of TubeR on JHMDB or UCF101-24, or the folder of all ranks.

    As in its evaluator, queries that are background count for nothing, and a line that
    samplers repeat counts again. Numbers of frames are those of the ground truth; no
    tube is in frame 0, which is left out. The short side of the resized frames is
    ``SHORT_SIDE``; if a true box of GT_<rank>.txt leaves such a frame, the files are
    refused.
    """
    files = sorted(path.glob('*.txt')) if path.is_dir() else [path]
    files = [file for file in files if _RANK.fullmatch(file.name)]
    if not files or _LINE.fullmatch(_first_line(files[0])) is None:
        return None
    frame_queries: dict[tuple[str, int], list[Query]] = defaultdict(list)
    for file in files:
        for place, video, frame, values in _read(file):
            frame_queries[video, frame].append((place, values))
    truths = sorted(files[0].parent.glob('GT_*.txt'))

    def samples(metric: TubeMetric) -> Iterator[tuple[str, dict]]:
        names = {name.replace('/', '_'): name for name in metric.videos}
        for place, video, _, values in chain.from_iterable(map(_read, truths)):
            if (values[4:6] > _size(metric, names.get(video)) + 1).any():
                raise UserError(
                    f'{place}: the true box leaves a frame with a short side of '
                    f'{SHORT_SIDE} pixels; give results with the IMG_SIZE of its '
                    'configuration for JHMDB.'
                )
        for (video, frame), queries in frame_queries.items():
            name, places, values = names.get(video, video), *zip(*queries, strict=True)
            if frame > 0:
                sample = _sample(metric, name, places, values)
                yield places[0], dict(sample, video_id=name, timestamp=frame)

    return Results(str(path), TubeMetric, samples, NO_SCORE)


def _first_line(file: Path) -> str:
    check_file(file)
    with file.open('rb') as lines:
        return lines.readline(1 << 20).decode('utf-8', 'replace')


def _read(file: Path) -> Iterator[tuple[str, str, int, np.ndarray]]:
    """Place, video, frame and numbers of each line."""
    for number, *row in right_lines(file, _parse, FORM):
        yield f'{file}, line {number}', *row


def _parse(number: int, line: str) -> tuple[int, str, int, np.ndarray]:
    if (match := _LINE.fullmatch(line)) is None:
        raise ValueError('it has another form')
    values = np.array([*map(parse_number, match[3].split(','))])
    if not np.isfinite(values).all():
        raise ValueError('not all are finite')
    return number, match[1], int(match[2]), values


def _sample(metric: TubeMetric, name: str, places: tuple, values: tuple) -> dict:
    """Boxes and scores of the queries of a frame."""
    labels = metric.num_classes - 1
    for place, numbers in zip(places, values, strict=True):
        if len(numbers) != 5 + labels:
            raise UserError(
                f'{place}: {len(numbers)} numbers, not {5 + labels}: a box, a score for '
                f'each of the {labels} labels of the ground truth, and one for '
                'background; give the ground truth of the tested dataset.'
            )
        if not (numbers[4:].min() >= 0 and numbers[4:].max() <= 1 + 1e-6):
            raise UserError(f'{place}: a score is not in [0, 1]; write {FORM}.')
    table = np.stack(values)
    table = table[table[:, 4:].argmax(axis=1) < labels]  # the rest is background
    scores = np.column_stack([np.full(len(table), NO_SCORE), table[:, 4:-1]])
    bboxes = table[:, :4] / np.tile(_size(metric, name), 2)
    return dict(pred_instances=dict(bboxes=bboxes, scores=scores))


def _size(metric: TubeMetric, video: str | None) -> np.ndarray:
    """w and h of the resized frames of a video; an unknown one does not count."""
    size = metric.scales[metric.video_numbers.get(video, 0), :2]
    return size * SHORT_SIDE / size.min()
