"""Linking of 3D-RetinaNet: paths of persons, each with several actions.

Source: modules/gen_agent_paths.py, tubes.py and modules/tube_helper.py, with the
defaults of main.py, and for UCF101-24 those of its readme.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.signal import medfilt

from stmixer_mm.evaluation.functional.linking import LINKINGS
from stmixer_mm.projects.published.road import best_labels, stretches

# Of UCF101-24's labels, in their order.
UCF24_ALPHAS = (
    *(1, 1, 16, 3, 1, 8, 16, 16, 10, 10, 3, 16),
    *(16, 10, 1, 8, 16, 16, 16, 2, 1, 8, 2, 16),
)


@dataclass(frozen=True, kw_only=True)
class RetinaLinking:
    """Constants of the linking.

    Results have no agentness: the best score of a box stands for it. As in the published
    code, two negative sides of boxes that lie apart multiply to an overlap, and gaps of
    paths are not filled: the boxes after a gap move to earlier frames.

    Args:
        score_thr: Agentness that a box exceeds.
        top_k: Best boxes of a frame that are linked.
        link_iou: Least overlap of a box with where a path is expected: its last box,
            moved on by the mean motion of its last ``end_after`` + 1.
        end_after: Frames after its last box in which a path goes on.
        min_sum: What the agentness of all boxes near a path exceeds in sum.
        min_length: Boxes that a tube exceeds; last minus first frame that a trimmed
            one has.
        actions: Best actions of a path, each of which makes a tube. Its score is the
            mean of the best ones of the action, as many as a quarter of the labels.
        trims: Whether a tube is cut to where its person scores high (``indiv``).
        alpha: What a cut costs; 0 is ``UCF24_ALPHAS`` for 24 labels.
    """

    score_thr: float = 0.025
    top_k: int = 10
    link_iou: float = 0.5
    end_after: int = 4
    min_sum: float = 0.1
    min_length: int = 5
    actions: int = 10
    trims: bool = False
    alpha: float = 0

    def link_video(
        self, length: int, frames: np.ndarray, bboxes: np.ndarray, scores: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, float]]:
        """See ``VideoLinking``."""
        agentness = scores[:, 1:].max(axis=1)
        for path in self._paths(frames, bboxes, agentness):
            box_frames, boxes, classes = frames[path], bboxes[path], scores[path, 1:]
            if len(boxes) > self.min_length:
                rows = np.column_stack([box_frames[0] + np.arange(len(boxes)), boxes])
                quarter = max(1, classes.shape[1] // 4)
                means = np.sort(classes, axis=0)[::-1][:quarter].mean(axis=0)
                for label in np.argsort(-means, kind='stable')[: self.actions].tolist():
                    if self.trims:
                        yield from self._trim(label, rows, classes)
                    else:
                        yield label + 1, rows, float(means[label])

    def _trim(
        self, label: int, rows: np.ndarray, classes: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, float]]:
        """Stretches of a path with an action; the score is the mean of its better half."""
        is_ucf = classes.shape[1] == len(UCF24_ALPHAS)
        values = classes.max(axis=1) if is_ucf else classes[:, label]
        values = values / medfilt(values, 5).max()
        # The labelling has a frame before the first, and not the last.
        label_scores = np.vstack([[1, 1], np.column_stack([values, 1 - values])[:-1]])
        alpha = UCF24_ALPHAS[label] if is_ucf and not self.alpha else self.alpha
        is_action = best_labels(label_scores, alpha) == 0
        for start, stop in stretches(is_action):
            if stop - 1 - start >= self.min_length:
                scores = np.sort(classes[start:stop, label])[::-1]
                half = scores[: max(1, len(scores) // 2)]
                yield label + 1, rows[start:stop], float(half.mean())

    def _paths(
        self, frames: np.ndarray, bboxes: np.ndarray, scores: np.ndarray
    ) -> list[list[int]]:
        """Numbers of the boxes of each path.

        Paths take turns by the mean of their best ``end_after`` + 1 scores, new ones
        last. Each takes the box with the best score.
        """
        live: list[list[int]] = []
        dead: list[list[int]] = []
        for frame in np.unique(frames):
            boxes = np.flatnonzero(frames == frame)
            boxes = boxes[np.argsort(-scores[boxes], kind='stable')[: self.top_k]]
            free = boxes[scores[boxes] > self.score_thr]
            if not len(free):
                continue
            ranks = []
            for path in live:
                if frame - frames[path[-1]] > self.end_after:
                    ranks.append(0.0)
                    continue
                worth = np.where(self._is_near(path, free, bboxes), scores[free], 0)
                if worth.sum() > self.min_sum:
                    path.append(int(free[worth.argmax()]))
                    free = np.delete(free, worth.argmax())
                ranks.append(np.sort(scores[path])[-self.end_after - 1 :].mean())
            live = [live[i] for i in np.argsort(ranks)[::-1]]
            dead += [path for path in live if frame - frames[path[-1]] > self.end_after]
            live = [path for path in live if frame - frames[path[-1]] <= self.end_after]
            live += [[int(box)] for box in free]
        return dead + live

    def _is_near(
        self, path: list[int], free: np.ndarray, bboxes: np.ndarray
    ) -> np.ndarray:
        """(n,) bool: free boxes that overlap the place where a path is expected."""
        steps = min(self.end_after + 1, len(path)) - 1
        last, past = bboxes[path[-1]], bboxes[path[-1 - steps]]
        expected, free_bboxes = last + (last - past) / max(1, steps), bboxes[free]
        low = np.maximum(expected, free_bboxes)[:, :2]
        high = np.minimum(expected, free_bboxes)[:, 2:]
        intersections = (high - low).prod(axis=1)
        areas = (expected[2:] - expected[:2]).prod() + (
            free_bboxes[:, 2:] - free_bboxes[:, :2]
        ).prod(axis=1)
        ious = np.zeros(len(free))
        unions = areas - intersections
        np.divide(intersections, unions, out=ious, where=intersections > 0)
        return ious >= self.link_iou


LINKINGS['retina'] = RetinaLinking()
LINKINGS['retina_ucf24'] = RetinaLinking(top_k=20, link_iou=0.25, trims=True)
