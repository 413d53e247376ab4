"""Linking of YOWO (Koepueklue et al., 2019), which YOWOv2 took over.

Source: ``link_bbxes_between_frames`` and ``link_video_one_class`` of
core/eval_results.py.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stmixer_mm.evaluation.functional.linking import LINKINGS
from stmixer_mm.evaluation.functional.matching import aligned_iou
from stmixer_mm.evaluation.functional.tubes import join_tubes, suppress_tubes


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
