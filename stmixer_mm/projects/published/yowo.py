"""Detection folders of YOWO and YOWOv2: a text file for each frame.

Source: ``test_ucf24_jhmdb21`` of YOWO's core/optimization.py, and
evaluator/ucf_jhmdb_evaluator.py of YOWOv2. For video mAP neither writes a file.
"""

import re
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from stmixer_mm.datasets.annotations.ava_csv import parse_number, right_lines
from stmixer_mm.errors import UserError
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
