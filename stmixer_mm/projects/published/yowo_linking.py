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
        link_pixel, tube_pixel: Pixels of a box beyond x2 - x1, between boxes and tubes.
        tube_nms_iou: Overlap above which a tube removes worse ones; None keeps them.
    """

    paths: int = 3
    link_pixel: float = 0
    tube_pixel: float = 1
    tube_nms_iou: float | None = 0.3

    def link_video(
        self, length: int, frames: np.ndarray, bboxes: np.ndarray, scores: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, float]]:
        """See ``VideoLinking``."""
        every = np.arange(1, length + 1)
        for column in range(1, scores.shape[1]):
            own = np.flatnonzero(scores[:, column] > 0)
            if not len(own):
                continue
            table = np.column_stack([bboxes[own], scores[own, column]])
            known, first = np.unique(frames[own], return_index=True)
            seen = np.split(table, first[1:])
            nearest = np.abs(every[:, None] - known).argmin(axis=1)
            tubes = join_tubes(
                (0, np.column_stack([every, path[:, :4]]), path[:, 4].mean())
                for path in _best_paths([seen[n] for n in nearest], self)
            )
            if self.tube_nms_iou is not None:
                options = dict(pixel=self.tube_pixel)
                tubes = suppress_tubes(tubes, self.tube_nms_iou, **options)
            boxes = np.split(tubes.bboxes, len(tubes.lengths))
            for one, score in zip(boxes, tubes.scores.tolist(), strict=True):
                yield column, np.column_stack([every, one]), score


def _best_paths(boxes: list[np.ndarray], linking: PathLinking) -> list[np.ndarray]:
    """Paths (T, 5) through boxes and scores (n_t, 5) of T frames, the best first."""
    links = [
        _links(first, second, linking) for first, second in itertools.pairwise(boxes)
    ]
    free = [np.zeros(len(one)) for one in boxes]  # -inf for what is taken
    paths = []
    while len(paths) < linking.paths and all(one.max() == 0 for one in free):
        # From the end: worth of the best way on from each box, and its next box.
        worth, following = free[-1], []
        for link, own in zip(links[::-1], free[-2::-1], strict=True):
            ways = link + worth
            following.append(ways.argmax(axis=1))
            worth = ways.max(axis=1) + own
        path = [worth.argmax()]
        for choice in following[::-1]:
            path.append(choice[path[-1]])
        for one, index in zip(free, path, strict=True):
            one[index] = -np.inf
        paths.append(np.stack([one[i] for one, i in zip(boxes, path, strict=True)]))
    return paths


def _links(first: np.ndarray, second: np.ndarray, linking: PathLinking) -> np.ndarray:
    """Worth (n, m) of going from boxes and scores (n, 5) to others (m, 5)."""
    ious = aligned_iou(first[:, None, :4], second[:, :4], pixel=linking.link_pixel)
    score, then = first[:, None, 4], second[:, 4]
    return ious + score + then + score * then / 2


LINKINGS['yowo'] = LINKINGS['yowov2'] = PathLinking()
