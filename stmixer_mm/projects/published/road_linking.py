"""Linking of ROAD (Singh et al., ICCV 2017): paths of a class, trimmed in time.

Source: online-tubes of its MATLAB code (actionPaths.m, incremental_linking.m,
PARactionPathSmoother.m, mydpEM_max.m, convert2eval.m).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stmixer_mm.evaluation.functional.linking import LINKINGS
from stmixer_mm.evaluation.functional.matching import aligned_iou


@dataclass(frozen=True, kw_only=True)
class RoadLinking:
    """Constants; the defaults are those of I01onlineTubes.m.

    Args:
        score_thr: Score that a box exceeds.
        candidates: Best boxes of a frame and class that are compared.
        nms_iou: Overlap above which a better box removes them.
        top_k: Boxes that are kept.
        link_iou: Least overlap of a box with the last one of a path.
        end_after: Frames after its last box in which a path goes on; paths of no more boxes
            are dropped, and gaps have copies of the box after them.
        alpha: What a change of the class costs when a path is trimmed; the script computes 3
            too, and prints 5.
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
        self, frames: np.ndarray, bboxes: np.ndarray, scores: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, float]]:
        """See ``VideoLinking``."""
        for column in range(1, scores.shape[1]):
            own = np.flatnonzero(scores[:, column] > self.score_thr)
            if not len(own):
                continue
            known, starts = np.unique(frames[own], return_index=True)
            by_frame = zip(known.tolist(), np.split(own, starts[1:]), strict=True)
            seen = {
                frame: boxes[self._suppress(bboxes[boxes], scores[boxes, column])]
                for frame, boxes in by_frame
            }
            for path in self._paths(seen, frames, bboxes, scores[:, column]):
                yield from self._trim(column, path, frames, bboxes, scores)

    def _suppress(self, bboxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Boxes that stay, best first; of equal scores the later one, as in nms.m."""
        order = np.argsort(-scores, kind='stable')[: self.candidates]
        order = order[np.argsort(scores[order], kind='stable')[::-1]]
        kept = []
        while len(order):
            kept.append(order[0])
            best = np.broadcast_to(bboxes[order[0]], (len(order), 4))
            ious = aligned_iou(bboxes[order], best)
            order = order[1:][ious[1:] <= self.nms_iou]
        return np.array(kept[: self.top_k], dtype=int)

    def _paths(
        self,
        seen: dict[int, np.ndarray],
        frames: np.ndarray,
        bboxes: np.ndarray,
        scores: np.ndarray,
    ) -> list[np.ndarray]:
        """Numbers of the boxes of each path.

        Paths take turns by the mean of their best ``end_after`` + 1 scores of the frame
        before, new ones last. Each takes the box with the best score.
        """
        live: list[list[int]] = []
        dead: list[list[int]] = []

        def rank(path: list[int], best: int) -> float:
            return -float(np.sort(scores[path])[-best:].mean())

        for frame in range(min(seen), max(seen) + 1):
            free = list(seen.get(frame, ()))
            for path in live:
                last = np.broadcast_to(bboxes[path[-1]], (len(free), 4))
                ious = aligned_iou(bboxes[free], last, pixel=1)
                near = np.array(free, dtype=int)[ious >= self.link_iou]
                if len(near):
                    path.append(int(near[scores[near].argmax()]))
                    free.remove(path[-1])
            live.sort(key=lambda path: rank(path, self.end_after + 1))
            dead += [
                path for path in live if frame - frames[path[-1]] >= self.end_after
            ]
            live = [path for path in live if frame - frames[path[-1]] < self.end_after]
            live += [[box] for box in free]
        paths = [path for path in live + dead if len(path) > self.end_after]
        return [
            np.array(path) for path in sorted(paths, key=lambda path: rank(path, 20))
        ]

    def _trim(
        self,
        column: int,
        path: np.ndarray,
        frames: np.ndarray,
        bboxes: np.ndarray,
        scores: np.ndarray,
    ) -> Iterator[tuple[int, np.ndarray, float]]:
        """The stretches of a path, without gaps, whose best labelling is its class."""
        every = np.arange(frames[path[0]], frames[path[-1]] + 1)
        path = path[np.searchsorted(frames[path], every)]
        is_own = best_labels(scores[path, 1:] + 20, self.alpha) == column - 1
        edges = np.flatnonzero(np.diff(is_own, prepend=False, append=False))
        for start, stop in edges.reshape(-1, 2).tolist():
            part = path[start:stop]
            if stop - 1 - start > self.min_span:
                best = np.sort(scores[part, column])[-self.best :]
                rows = np.column_stack([every[start:stop], bboxes[part]])
                yield column, rows, float(best.mean())


def best_labels(values: np.ndarray, alpha: float) -> np.ndarray:
    """Labels (T,) of the greatest sum of values (T, C), where a change costs alpha."""
    total, classes = values[0].copy(), np.arange(values.shape[1])
    before = np.zeros(values.shape, dtype=int)
    for t in range(1, len(values)):
        best = total.argmax()
        changed = total[best] - alpha
        stays = (total > changed) | (total == changed) & (classes < best)
        before[t] = np.where(stays, classes, best)
        total = values[t] + np.where(stays, total, changed)
    labels = [total.argmax()]
    for choice in before[:0:-1]:
        labels.append(choice[labels[-1]])
    return np.array(labels[::-1])


LINKINGS['road'] = RoadLinking()
