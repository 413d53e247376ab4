"""Detections of ROAD (Singh et al., ICCV 2017) in a pickle.

Source: test-ucf24.py, which writes it, and data/ucf24.py.
"""

from pathlib import Path
from typing import Any

import numpy as np

from stmixer_mm.errors import blame
from stmixer_mm.evaluation.metrics.tube_metric import TubeMetric
from stmixer_mm.evaluation.results.rows import Results, result_reader
from stmixer_mm.projects.published.frame_rows import row_results

SIDE = 300  # pixels of its frames, which are squeezed to squares
FORM = (
    'a list of true boxes, of detections by label and frame, arrays (n, 5) of a box and '
    'its score, and of files <class>/<video>/<frame>.mat'
)


@result_reader
def pickle_results(path: Path, content: Any) -> Results | None:
    """``detection-<iteration>.pkl`` of test-ucf24.py, after suppression in each class.

    It is a list of the true boxes, the detections by label and frame, and the names
    <class>/<video>/<frame>.mat of the frames; boxes are in pixels of 300 x 300.
    """
    match content:
        case [_, by_label, [str(), *_] as files]:
            pass
        case _:
            return None
    with blame(f'{path} is not of ROAD', f'write {FORM}'):
        folders = {str(Path(file).parent): None for file in files}
        numbers = {folder: number for number, folder in enumerate(folders)}
        parts = []
        for label, by_frame in enumerate(by_label):
            for number, (file, boxes) in enumerate(zip(files, by_frame, strict=True)):
                boxes = np.reshape(np.asarray(boxes, dtype=float), (-1, 5))
                frame = int(Path(file).stem)
                if not (np.isfinite(boxes).all() and frame >= 1):
                    raise ValueError(f'label {label}, frame {number} of {file}')
                indices = numbers[str(Path(file).parent)], frame, label
                indices = np.tile(indices, (len(boxes), 1))
                parts.append(np.column_stack([indices, boxes[:, 4], boxes[:, :4]]))
        table = np.concatenate(parts)
        if not len(table) or not (table[:, 3].min() >= 0 and table[:, 3].max() <= 1):
            raise ValueError('it has no box, or a score that is not in [0, 1]')

    def names(metric: TubeMetric) -> list[str]:
        return [_video(folder, metric) for folder in folders]

    return row_results(path, table, lambda row: f'{path}, box {row}', names, size=SIDE)


def _video(folder: str, metric: TubeMetric) -> str:
    """Name of the video of a folder."""
    parts = Path(folder).parts
    names = ['/'.join(parts[-number:]) for number in (2, 1, 3)]
    return next((name for name in names if name in metric.video_numbers), names[0])
