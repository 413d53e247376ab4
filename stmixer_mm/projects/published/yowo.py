"""YOWO (Koepueklue et al., 2019) and YOWOv2: their folders of detections, their linking.

Source: ``test_ucf24_jhmdb21`` of YOWO's core/optimization.py, and
evaluator/ucf_jhmdb_evaluator.py of YOWOv2, which write a text file for each frame;
``link_bbxes_between_frames`` and ``link_video_one_class`` of YOWO's
core/eval_results.py. For video mAP neither writes a file.
"""

import itertools
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stmixer_mm.datasets.annotations.ava_csv import parse_number, right_lines
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.functional.linking import LINKINGS
from stmixer_mm.evaluation.functional.matching import aligned_iou
from stmixer_mm.evaluation.functional.tubes import join_tubes, suppress_tubes
from stmixer_mm.evaluation.metrics.tube_metric import TubeMetric
from stmixer_mm.evaluation.results.rows import Results, result_reader
from stmixer_mm.projects.published.frame_rows import row_results

FORM = (
    'label score x1 y1 x2 y2 (a whole label from 1, a score in [0, 1], an upright box in '
    'pixels)'
)
_NAME = re.compile(r'(.+)_(\d+)\.txt')


@result_reader
def yowo_results(folder: Path, content: Any) -> Results | None:
    """A folder of ``<class>_<video>_<frame>.txt``, with lines as ``FORM``.

    Labels and frames count from 1; boxes are whole pixels, which may lie outside. The
    lines count as they are: of a box, YOWO writes each further class above 0.005 with
    the label of the best one, and is evaluated so. Files may be empty.
    """
    files = {file: _NAME.fullmatch(file.name) for file in sorted(folder.glob('*.txt'))}
    foreign_files = [file for file, file_name in files.items() if not file_name]
    has_numbers = any(file.stem.isdecimal() for file in foreign_files)
    if has_numbers or len(foreign_files) == len(files):
        return None
    if foreign_files:
        raise UserError(
            f'{foreign_files[0]} is not <class>_<video>_<frame>.txt as YOWO names its '
            'files; rename or remove it.'
        )
    numbers: dict[str, int] = {}
    places: list[str] = []
    table = array('d')
    for file, file_name in files.items():
        frame = int(file_name[2])
        if frame < 1:
            raise UserError(f'{file} is of frame {frame}; number frames from 1.')
        video = numbers.setdefault(file_name[1], len(numbers))
        for line, *row in right_lines(file, _parse, FORM):
            table.extend((video, frame, *row))
            places.append(f'{file}, line {line}')
    if not places:
        raise UserError(f'{folder} has no detection; its files are empty.')
    rows = np.frombuffer(table).reshape(-1, 8)

    def names(metric: TubeMetric) -> list[str]:
        # Of a video, YOWO writes / as _.
        video_names = {name.replace('/', '_'): name for name in metric.videos}
        return [video_names.get(name, name) for name in numbers]

    return row_results(folder, rows, lambda row: places[row - 1], names)


def _parse(number: int, line: str) -> tuple[float, ...]:
    """Number of a line, label from 0, score and box."""
    label, score, *box = map(parse_number, line.split())
    x1, y1, x2, y2 = box
    if not (label >= 1 and label.is_integer() and 0 <= score <= 1):
        raise ValueError(f'the label is {label:g}, the score {score:g}')
    if not (-np.inf < x1 <= x2 < np.inf and -np.inf < y1 <= y2 < np.inf):
        raise ValueError('the box is {:g}, {:g}, {:g}, {:g}'.format(*box))
    return number, label - 1, score, *box


@dataclass(frozen=True, kw_only=True)
class PathLinking:
    """The best paths of each class, each through all frames of a video.

    A frame without boxes has those of the nearest one that has some, the earlier of
    two. Boxes a, b of neighbouring frames are worth IoU + s_a + s_b + s_a s_b / 2 to a
    path; the boxes of one are gone for the next, until a frame has none. A tube's
    score is the mean of its boxes.

    Args:
        paths: Of each class, at most.
        tube_nms_iou: Overlap above which a tube removes worse ones; None keeps them.
    """

    paths: int = 3
    tube_nms_iou: float | None = 0.3

    def link_video(
        self, length: int, frames: np.ndarray, bboxes: np.ndarray, scores: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, float]]:
        """See ``VideoLinking``."""
        all_frames = np.arange(1, length + 1)
        for column in range(1, scores.shape[1]):
            box_numbers = np.flatnonzero(scores[:, column] > 0)
            if not len(box_numbers):
                continue
            table = np.column_stack([bboxes[box_numbers], scores[box_numbers, column]])
            box_frames, first = np.unique(frames[box_numbers], return_index=True)
            frame_tables = np.split(table, first[1:])
            nearest = np.abs(all_frames[:, None] - box_frames).argmin(axis=1)
            tubes = join_tubes(
                (0, np.column_stack([all_frames, path[:, :4]]), path[:, 4].mean())
                for path in _best_paths([frame_tables[n] for n in nearest], self.paths)
            )
            if self.tube_nms_iou is not None:
                tubes = suppress_tubes(tubes, self.tube_nms_iou, pixel=1)
            boxes = np.split(tubes.bboxes, len(tubes.lengths))
            for tube_bboxes, score in zip(boxes, tubes.scores.tolist(), strict=True):
                yield column, np.column_stack([all_frames, tube_bboxes]), score


def _best_paths(boxes: list[np.ndarray], number: int) -> list[np.ndarray]:
    """Paths (T, 5) through boxes and scores (n_t, 5) of T frames, the best first."""
    links = [_links(first, second) for first, second in itertools.pairwise(boxes)]
    penalties = [np.zeros(len(rows)) for rows in boxes]  # -inf: in a path already
    paths = []
    while len(paths) < number and all(row.max() == 0 for row in penalties):
        # From the end: worth of the best way on from each box, and its next box.
        worth, following = penalties[-1], []
        for link, penalty in zip(links[::-1], penalties[-2::-1], strict=True):
            ways = link + worth
            following.append(ways.argmax(axis=1))
            worth = ways.max(axis=1) + penalty
        path = [worth.argmax()]
        for choice in following[::-1]:
            path.append(choice[path[-1]])
        for penalty, index in zip(penalties, path, strict=True):
            penalty[index] = -np.inf
        paths.append(np.stack([rows[i] for rows, i in zip(boxes, path, strict=True)]))
    return paths


def _links(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Worth (n, m) of going from boxes and scores (n, 5) to others (m, 5)."""
    ious = aligned_iou(first[:, None, :4], second[:, :4])
    score, then = first[:, None, 4], second[:, 4]
    return ious + score + then + score * then / 2


LINKINGS['yowo'] = LINKINGS['yowov2'] = PathLinking()
