"""ROAD (Singh et al., ICCV 2017): its detections in a pickle, and its linking.

Source: test-ucf24.py, which writes the pickle, and data/ucf24.py; online-tubes of the
MATLAB code (actionPaths.m, incremental_linking.m, PARactionPathSmoother.m, mydpEM_max.m,
convert2eval.m), which makes paths of a class, trimmed in time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stmixer_mm.errors import blame
from stmixer_mm.evaluation.functional.linking import (
    LINKINGS,
    Linking,
    NumberedBoxes,
    suppress_tubelets,
)
from stmixer_mm.evaluation.functional.matching import aligned_iou, first_of_runs
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


@dataclass(frozen=True, kw_only=True)
class RoadLinking:
    """Constants; the defaults are those of I01onlineTubes.m.

    Args:
        score_thr: Score that a box exceeds.
        candidates: Best boxes of a frame and class that are compared.
        nms_iou: Overlap above which a better box removes them.
        top_k: Boxes that are kept.
        link_iou: Least overlap of a box with the last one of a path.
        end_after: Frames after its last box in which a path goes on; paths of no more
            boxes are dropped, and gaps have copies of the box after them.
        alpha: What a change of the class costs when a path is trimmed; the script
            computes 3 too, and prints 5.
        best: Best scores of a tube that it has the mean of.
        min_span: Last minus first frame that a tube exceeds.
    """

    score_thr: float = 0.001
    candidates: int = 50
    nms_iou: float = 0.45
    top_k: int = 10
    link_iou: float = 0.1
    end_after: int = 3
    alpha: float = 5
    best: int = 40
    min_span: int = 8

    def link_video(
        self, length: int, frames: np.ndarray, bboxes: np.ndarray, scores: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, float]]:
        """See ``VideoLinking``."""
        boxes, columns = self._suppress(frames, bboxes, scores)
        for column in np.unique(columns).tolist():
            class_boxes = boxes[columns == column]
            for path in self._paths(class_boxes, frames, bboxes, scores[:, column]):
                yield from self.trim(column, path, frames, bboxes, scores)

    def _suppress(
        self, frames: np.ndarray, bboxes: np.ndarray, scores: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes of each class that stay, and their columns; by frame, the best first.

        Of equal scores the last of the candidates goes first, as in nms.m.
        """
        box, column = np.nonzero(scores[:, 1:] > self.score_thr)
        column, value = column + 1, scores[box, column + 1]
        order = np.lexsort((-value, column, frames[box]))
        box, column, value = box[order], column[order], value[order]
        groups = np.cumsum(first_of_runs(frames[box], column))
        rank = np.arange(len(groups)) - np.searchsorted(groups, groups)
        candidates = np.flatnonzero(rank < self.candidates)[::-1]
        box, column, value = box[candidates], column[candidates], value[candidates]
        numbered_boxes = NumberedBoxes(
            column, frames[box, None], bboxes[box, None], value, box
        )
        nms = Linking(nms_iou=self.nms_iou, top_k=self.top_k, nms_pixel=0)
        remaining_boxes = suppress_tubelets(numbered_boxes, nms)
        return remaining_boxes.numbers, remaining_boxes.sequences

    def _paths(
        self,
        boxes: np.ndarray,
        frames: np.ndarray,
        bboxes: np.ndarray,
        scores: np.ndarray,
    ) -> list[np.ndarray]:
        """Numbers of the boxes of each path.

        Paths take turns by the mean of their best ``end_after`` + 1 scores of the frame
        before, new ones last. Each takes the box with the best score.
        """
        numbers, starts = np.unique(frames[boxes], return_index=True)
        boxes_by_frame = dict(
            zip(numbers.tolist(), np.split(boxes, starts[1:]), strict=True)
        )
        live: list[_Path] = []
        dead: list[_Path] = []
        for frame in range(numbers[0], numbers[-1] + 1):
            candidates = boxes_by_frame.get(frame, boxes[:0])
            free = np.full(len(candidates), True)
            if live and len(candidates):
                last = bboxes[[path.boxes[-1] for path in live]]
                ious = aligned_iou(last[:, None], bboxes[candidates], pixel=1)
                worth = np.where(ious >= self.link_iou, scores[candidates], 0)
                for path, path_worth in zip(live, worth, strict=True):
                    best = path_worth.argmax()
                    if path_worth[best] > 0:
                        box = int(candidates[best])
                        path.add(box, frame, scores, self.end_after + 1)
                        worth[:, best], free[best] = 0, False
            live.sort(key=lambda path: -path.mean)
            dead += [path for path in live if frame - path.last >= self.end_after]
            live = [path for path in live if frame - path.last < self.end_after]
            live += [_Path(box, frame, scores) for box in candidates[free].tolist()]
        paths = [path.boxes for path in live + dead if len(path.boxes) > self.end_after]
        paths.sort(key=lambda path: -np.sort(scores[path])[-20:].mean())
        return list(map(np.array, paths))

    def trim(
        self,
        column: int,
        path: np.ndarray,
        frames: np.ndarray,
        bboxes: np.ndarray,
        scores: np.ndarray,
    ) -> Iterator[tuple[int, np.ndarray, float]]:
        """The stretches of a path, without gaps, whose best labelling is its class."""
        path_frames = np.arange(frames[path[0]], frames[path[-1]] + 1)
        path = path[np.searchsorted(frames[path], path_frames)]
        is_own = best_labels(scores[path, 1:] + 20, self.alpha) == column - 1
        for start, stop in stretches(is_own):
            part = path[start:stop]
            if stop - 1 - start > self.min_span:
                best = np.sort(scores[part, column])[-self.best :]
                rows = np.column_stack([path_frames[start:stop], bboxes[part]])
                yield column, rows, float(best.mean())


class _Path:
    """Boxes by number, and the mean of the best scores."""

    def __init__(self, box: int, frame: int, scores: np.ndarray) -> None:
        self.boxes, self.last = [box], frame
        self.best = [float(scores[box])]
        self.mean = self.best[0]

    def add(self, box: int, frame: int, scores: np.ndarray, number: int) -> None:
        self.boxes.append(box)
        self.last = frame
        self.best = sorted([*self.best, float(scores[box])])[-number:]
        self.mean = sum(self.best) / len(self.best)


def best_labels(values: np.ndarray, alpha: float) -> np.ndarray:
    """Labels (T,) of the greatest sum of values (T, C), where a change costs alpha."""
    total, classes = values[0].copy(), np.arange(values.shape[1])
    previous_labels = np.zeros(values.shape, dtype=int)
    for t in range(1, len(values)):
        best = total.argmax()
        changed = total[best] - alpha
        stays = (total > changed) | (total == changed) & (classes < best)
        previous_labels[t] = np.where(stays, classes, best)
        total = values[t] + np.where(stays, total, changed)
    labels = [total.argmax()]
    for choice in previous_labels[:0:-1]:
        labels.append(choice[labels[-1]])
    return np.array(labels[::-1])


def stretches(is_there: np.ndarray) -> list[tuple[int, int]]:
    """Starts and stops of the runs of a mask (T,)."""
    edges = np.flatnonzero(np.diff(is_there, prepend=False, append=False))
    return edges.reshape(-1, 2).tolist()


LINKINGS['road'] = RoadLinking()
