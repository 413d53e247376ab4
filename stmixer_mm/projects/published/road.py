"""Results of ROAD (Singh et al., ICCV 2017): a pickle, a .mat file a frame, paths.

Source: test-ucf24.py, which writes both; data/ucf24.py; dofilter of online-tubes'
actionPaths.m, which reads the .mat files and writes paths.
"""

import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from stmixer_mm.datasets.annotations.tube_annotations import check_tube
from stmixer_mm.errors import blame
from stmixer_mm.evaluation.metrics.tube_metric import TubeMetric
from stmixer_mm.evaluation.metrics.video_map_metric import VideoMAPMetric
from stmixer_mm.evaluation.results.rows import NO_SCORE, Results, result_reader
from stmixer_mm.files import check_file
from stmixer_mm.projects.published.frame_rows import row_results
from stmixer_mm.projects.published.road_linking import RoadLinking

_PATHS = '-actionpaths.mat'
READ_S = 60.0  # for a .mat file
SIDE = 300  # pixels of its frames, which are squeezed to squares
# All scripts take the best boxes of a class above a score; these are the most and
# lowest.
CANDIDATES, LEAST_SCORE = 50, 0.001
_MAT = (
    'loc (n, 4), boxes in [0, 1], and scores (n, labels + 1), of which column 0 is '
    'background'
)
_PICKLE = (
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
    with blame(f'{path} is not of ROAD', f'write {_PICKLE}'):
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


@result_reader
def mat_results(folder: Path, content: Any) -> Results | None:
    """A folder with <class>/<video>/<frame>.mat, frames from 1, before suppression.

    Of the 8,732 boxes of a file those are kept that are among the best ``CANDIDATES``
    of a class with a score above ``LEAST_SCORE``: all that ROAD's scripts use.
    """
    files = sorted(file for file in folder.rglob('*.mat') if file.stem.isdecimal())
    if not files:
        return None

    def samples(metric: TubeMetric) -> Iterator[tuple[str, dict]]:
        for file in files:
            instances = _read_mat(file, metric.num_classes)
            video = _video(str(file.parent), metric)
            sample = dict(video_id=video, timestamp=int(file.stem))
            yield str(file), dict(sample, pred_instances=instances)

    return Results(str(folder), TubeMetric, samples, NO_SCORE)


@result_reader
def path_results(folder: Path, content: Any) -> Results | None:
    """A folder with <class>/<video>-actionpaths.mat of actionPaths.m, here trimmed.

    It has a cell for each label, of paths with their ``start``, and in each frame
    ``boxes`` that count from 1, and ``allScores`` of the labels.
    """
    files = sorted(folder.rglob(f'*{_PATHS}'))
    if not files:
        return None

    def samples(metric: VideoMAPMetric) -> Iterator[tuple[str, dict]]:
        for file in files:
            tubes = _read_paths(file, metric.num_classes - 1)
            video = _video(str(file).removesuffix(_PATHS), metric)
            yield str(file), dict(video_id=video, pred_tubes=tubes)

    return Results(str(folder), VideoMAPMetric, samples)


def _read_paths(file: Path, num_labels: int) -> list[tuple[int, float, np.ndarray]]:
    """Labels from 0, scores and rows of the trimmed tubes of a video."""
    tubes, linking = [], RoadLinking()
    form = 'write allpaths, a cell of paths for each label, as actionPaths.m'
    with blame(f'{file} is not of ROAD', form):
        by_label = _load_mat(file, 'allpaths')['allpaths'].ravel()
        if by_label.dtype != object or len(by_label) != num_labels:
            raise ValueError(f'it has {len(by_label)} labels, not {num_labels}')
        for column, paths in enumerate(by_label, start=1):
            # Without paths a label has a struct without fields.
            for struct in paths.ravel() if paths.dtype.names else ():
                bboxes, scores = struct['boxes'] * 1.0, struct['allScores'] * 1.0
                frames = int(struct['start'].item()) + np.arange(len(bboxes))
                scores = np.insert(scores[:, :num_labels], 0, 0, axis=1)
                path = np.arange(len(bboxes))
                trimmed = linking.trim(column, path, frames, bboxes - 1, scores)
                for _, rows, score in trimmed:
                    tubes.append((column - 1, score, check_tube(rows)))
    return tubes


def _load_mat(file: Path, *names: str) -> dict[str, np.ndarray]:
    """Variables of a .mat file, read in another process: damaged ones crash scipy."""
    check_file(file)
    try:
        submit = _mat_reader().submit
        submit(signal.setitimer, signal.ITIMER_REAL, READ_S)  # which ends that process
        content = submit(loadmat, file, variable_names=names)
        submit(signal.setitimer, signal.ITIMER_REAL, 0)
        return content.result()
    except BrokenProcessPool as error:
        _mat_reader.cache_clear()
        raise ValueError(
            f'it is damaged, or takes more than {READ_S:g} s to read'
        ) from error


@cache
def _mat_reader() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context('spawn'))


def _read_mat(file: Path, num_classes: int) -> dict[str, np.ndarray]:
    with blame(f'{file} is not of ROAD', f'write {_MAT}'):
        content = _load_mat(file, 'loc', 'scores')
        bboxes, scores = content['loc'], content['scores']
        if bboxes.shape != (len(scores), 4) or scores.shape[1:] != (num_classes,):
            raise ValueError(f'loc {bboxes.shape}, scores {scores.shape}')
        if not (np.isfinite(bboxes).all() and 0 <= scores.min() <= scores.max() <= 1):
            raise ValueError('a box is not finite, or a score not in [0, 1]')
    actions = scores[:, 1:]
    best = np.argsort(-actions, axis=0, kind='stable')[:CANDIDATES]
    is_candidate = np.take_along_axis(actions, best, axis=0) > LEAST_SCORE
    candidates = np.unique(best[is_candidate])
    return dict(bboxes=bboxes[candidates], scores=scores[candidates])


def _video(folder: str, metric: TubeMetric) -> str:
    """Name of the video of a folder."""
    parts = Path(folder).parts
    names = ['/'.join(parts[-number:]) for number in (2, 1, 3)]
    return next((name for name in names if name in metric.video_numbers), names[0])
