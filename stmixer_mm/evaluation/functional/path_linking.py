"""Tubes as the best paths through a whole video, as pure functions of arrays.

Source: the linking of YOWO (Koepueklue et al., 2019), which YOWOv2 took over.
"""

import itertools

import numpy as np

from stmixer_mm.evaluation.functional.linking import Linking, Tubelets, has_box
from stmixer_mm.evaluation.functional.matching import aligned_iou, first_of_runs
from stmixer_mm.evaluation.functional.tubes import Tubes, join_tubes


def link_paths(tubelets: Tubelets, lengths: np.ndarray, linking: Linking) -> Tubes:
    """The best ``linking.paths`` of each sequence, each through all of its frames.

    A frame without boxes has those of the nearest one that has some, the earlier of two.
    Boxes a, b of neighbouring frames are worth IoU + s_a + s_b + s_a s_b / 2 to a path;
    the boxes of one are gone for the next, until a frame has none. A tube's score is the
    mean of its boxes.

    Args:
        tubelets: Their boxes count one by one.
        lengths: Frames of each sequence.
        linking: Constants; of these ``paths`` and ``link_pixel``.
    """
    one, entry = np.nonzero(has_box(tubelets.bboxes))
    sequences, frames = tubelets.sequences[one], tubelets.frames[one, entry]
    order = np.lexsort((frames, sequences))
    sequences, frames = sequences[order], frames[order]
    table = np.column_stack([tubelets.bboxes[one, entry], tubelets.scores[one]])[order]
    starts = np.flatnonzero(first_of_runs(sequences)).tolist()
    tubes = []
    for start, stop in zip(starts, [*starts[1:], len(sequences)], strict=True):
        sequence, last = sequences[start], lengths[sequences[start]]
        known, first = np.unique(frames[start:stop], return_index=True)
        seen = np.split(table[start:stop], first[1:])
        every = np.arange(1, last + 1)
        nearest = np.abs(every[:, None] - known).argmin(axis=1)
        for boxes in _best_paths([seen[n] for n in nearest], linking):
            rows = np.column_stack([every, boxes[:, :4]])
            tubes.append((sequence, rows, boxes[:, 4].mean()))
    return join_tubes(tubes)


def _best_paths(boxes: list[np.ndarray], linking: Linking) -> list[np.ndarray]:
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


def _links(first: np.ndarray, second: np.ndarray, linking: Linking) -> np.ndarray:
    """Worth (n, m) of going from boxes and scores (n, 5) to others (m, 5)."""
    one, other = np.indices((len(first), len(second))).reshape(2, -1)
    pairs = first[one, :4], second[other, :4]
    ious = aligned_iou(*pairs, pixel=linking.link_pixel)
    score, then = first[one, 4], second[other, 4]
    worth = ious + score + then + score * then / 2
    return worth.reshape(len(first), len(second))
