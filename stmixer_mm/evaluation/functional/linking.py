"""Linking boxes of single frames to tubes, as pure functions.

N boxes with ``sequences`` (a class in a video), ``frames`` counted from 1, ``bboxes``
xyxy in pixels and ``scores``. Only boxes of one sequence are compared.
"""

import itertools
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from stmixer_mm.errors import UserError, blame, choose
from stmixer_mm.evaluation.functional.matching import (
    aligned_iou,
    choose_in_turn,
    first_of_runs,
    group_pairs,
    take,
)
from stmixer_mm.evaluation.functional.tubes import Tubes, suppress_tubes, take_tubes


class FrameBoxes(NamedTuple):
    """Boxes of single frames, in any order."""

    sequences: np.ndarray  # (N,) int
    frames: np.ndarray  # (N,) int
    bboxes: np.ndarray  # (N, 4) float
    scores: np.ndarray  # (N,) float


@dataclass(frozen=True, kw_only=True)
class Linking:
    """The constants of linking; the defaults are those of ACT.

    "ACT" is Kalogeiton et al., Action tubelet detector for spatio-temporal action
    localization, ICCV 2017, by its scripts ACT.py and ACT_utils.py: ``BuildTubes``
    and ``videoAP``. "MOC" is Li et al., Actions as moving points, ECCV 2020, by its
    ACT_build.py and ACT.py. Both link tubelets of K frames (6 and 7); here K is 1.

    Args:
        nms: ``'hard'`` removes boxes that overlap a higher-scoring one of their frame
            and class (ACT); ``'soft'`` multiplies their score by 1 - IoU, once (MOC);
            None does neither.
        nms_iou: Boxes that overlap by more are meant (ACT 0.3, MOC 0.6).
        top_k: Boxes kept per frame and class (ACT and MOC 10).
        link_iou: A box continues a tube if it overlaps the last box by at least this
            (ACT 0.2, MOC 0.5).
        end_after: A tube ends when no box continues it this many frames after its
            last one (ACT 5 for K = 6, MOC K). Frames in between get interpolated
            boxes, which is this package's own choice: tubelets cover such frames.
        min_score: Tubes with a lower mean score go (ACT 0.01, MOC 0.005).
        min_length: Tubes of fewer frames go (ACT and MOC 15, for all datasets).
        tube_nms_iou: Tubes of a class that overlap a higher-scoring one by more go;
            None keeps them (ACT and MOC 0.3, MultiSports and mmaction2 None).
        trim_cost: Cost of a change between action and background in temporal
            trimming, see ``trim_tubes``; None does not trim (ACT, MOC, MultiSports).
            The scripts of Singh et al. (ICCV 2017) take 3 and 5.
        nms_pixel, link_pixel, tube_pixel: What a box measures beyond x2 - x1 in the
            three IoUs (1 in ACT and MOC; link_pixel 0 in mmaction2).
    """

    nms: str | None = 'hard'
    nms_iou: float = 0.3
    top_k: int = 10
    link_iou: float = 0.2
    end_after: int = 5
    min_score: float = 0.01
    min_length: int = 15
    tube_nms_iou: float | None = 0.3
    trim_cost: float | None = None
    nms_pixel: float = 1
    link_pixel: float = 1
    tube_pixel: float = 1

    def __post_init__(self) -> None:
        choose('nms', self.nms, dict.fromkeys(('hard', 'soft', None)))
        for name, value in vars(self).items():
            form, number, low, high = 'a number in [0, 1]', Real, 0, 1
            if name in ('top_k', 'end_after', 'min_length'):
                form, number, low, high = 'a whole number from 1 on', int, 1, inf
            elif name in ('min_score', 'trim_cost'):
                form, high = 'a number from 0 on', inf
            may_be_none = name in ('nms', 'tube_nms_iou', 'trim_cost')
            is_sound = isinstance(value, number) and low <= value <= high
            if name != 'nms' and not is_sound and not (may_be_none and value is None):
                raise UserError(f'linking has {name}={value!r}; write {form}.')


LINKINGS = {
    'act': Linking(),
    # With K = 1.
    'moc': Linking(nms='soft', nms_iou=0.6, link_iou=0.5, end_after=1, min_score=0.005),
}
# mmaction2's link_tubes, MOC's with K = 1, apart from its mistake of giving all boxes of
# a video the score of one.
LINKINGS['multisports'] = replace(LINKINGS['moc'], tube_nms_iou=None, link_pixel=0)

# What the scripts do to the boxes of each frame and class before frame mAP. Their
# tubelets of K frames give up to K boxes for a person in a frame.
FRAME_NMS = {
    name: replace(LINKINGS[name], top_k=sys.maxsize) for name in ('act', 'moc')
}


def parse_linking(linking: str | Mapping[str, Any]) -> Linking:
    """Constants by name, or a dict of those that differ from a named base.

    Raises:
        UserError: a name is unknown, or a constant is out of range.
    """
    changes = dict(base=linking) if isinstance(linking, str) else dict(linking)
    base = changes.pop('base', 'act')
    constants = choose('linking', base, LINKINGS)
    known = ', '.join(vars(constants))
    with blame(f'linking={linking!r} cannot be used', f'it may have base, {known}'):
        return replace(constants, **changes)


def link_boxes(boxes: FrameBoxes, linking: Linking) -> Tubes:
    """Tubes of all sequences: suppress, link, fill gaps, select, trim.

    A tube's score is the mean score of its linked boxes.
    """
    boxes = suppress_boxes(boxes, linking)
    tubes = _select(build_tubes(boxes, assign_tubes(boxes, linking)), linking)
    if linking.trim_cost is not None:
        tubes = _select(trim_tubes(tubes, linking.trim_cost), linking)
    if linking.tube_nms_iou is not None:
        tubes = suppress_tubes(tubes, linking.tube_nms_iou, pixel=linking.tube_pixel)
    return tubes


def suppress_boxes(boxes: FrameBoxes, linking: Linking) -> FrameBoxes:
    """The best boxes of each frame and sequence, by descending score.

    What comes out is sorted by frame, then by sequence.
    """
    boxes = _best_first(boxes)
    if linking.nms is not None:
        boxes = _best_first(_suppress(boxes, linking))
    is_first = first_of_runs(boxes.frames, boxes.sequences)
    first = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    return take(boxes, np.arange(len(first)) - first < linking.top_k)


def _best_first(boxes: FrameBoxes) -> FrameBoxes:
    """Sorted by frame, then by sequence, then by descending score."""
    return take(boxes, np.lexsort((-boxes.scores, boxes.sequences, boxes.frames)))


def _suppress(boxes: FrameBoxes, linking: Linking) -> FrameBoxes:
    """A box goes, or loses score once, to the best one that it overlaps too much."""
    scores, stays = boxes.scores.copy(), np.ones(len(boxes.scores), dtype=bool)
    rest = np.arange(len(scores))
    while len(rest):
        is_first = first_of_runs(boxes.frames[rest], boxes.sequences[rest])
        best = rest[is_first][np.cumsum(is_first) - 1][~is_first]
        rest = rest[~is_first]
        first, second = boxes.bboxes[rest], boxes.bboxes[best]
        iou = aligned_iou(first, second, pixel=linking.nms_pixel)
        loses = iou > linking.nms_iou
        if linking.nms == 'hard':
            stays[rest[loses]] = False
        else:
            scores[rest[loses]] *= 1 - iou[loses]
        rest = rest[~loses]
    return take(boxes._replace(scores=scores), stays)


def assign_tubes(boxes: FrameBoxes, linking: Linking) -> np.ndarray:
    """The tube (N,) of each box; ``boxes`` as ``suppress_boxes`` leaves them.

    Frame by frame, the tubes of a sequence take turns by descending mean score, and
    each takes the highest-scoring free box that overlaps its last one enough. Boxes
    that no tube takes start tubes. Source: ``BuildTubes`` of ACT.
    """
    num_boxes = len(boxes.scores)
    tube_of = np.full(num_boxes, -1)
    last = np.zeros(num_boxes, dtype=int)  # the last box of each tube
    total = np.zeros(num_boxes)  # the sum of its scores
    count = np.zeros(num_boxes, dtype=int)
    num_tubes = 0
    current = np.zeros(0, dtype=int)
    bounds = np.append(np.flatnonzero(first_of_runs(boxes.frames)), num_boxes)
    for start, stop in itertools.pairwise(bounds):
        age = boxes.frames[start] - boxes.frames[last[current]]
        current = current[age <= linking.end_after]
        of_sequence = np.argsort(boxes.sequences[last[current]], kind='stable')
        current = current[of_sequence]
        found = list(
            group_pairs(boxes.sequences[start:stop], boxes.sequences[last[current]])
        )
        if found:
            box, tube = map(np.concatenate, zip(*found, strict=True))
            box, tube = box + start, current[tube]
            iou = aligned_iou(
                boxes.bboxes[box], boxes.bboxes[last[tube]], pixel=linking.link_pixel
            )
            near = iou >= linking.link_iou
            box, tube = box[near], tube[near]
            means = total[tube] / count[tube]
            sequence = boxes.sequences[box]
            order = np.lexsort((box, -boxes.scores[box], tube, -means, sequence))
            box, tube = box[order], tube[order]
            chosen = choose_in_turn(sequence[order], tube, box)
            box, tube = box[chosen], tube[chosen]
            tube_of[box] = tube
            last[tube] = box
            total[tube] += boxes.scores[box]
            count[tube] += 1
        new = start + np.flatnonzero(tube_of[start:stop] < 0)
        tubes = num_tubes + np.arange(len(new))
        num_tubes += len(new)
        tube_of[new] = tubes
        last[tubes] = new
        total[tubes] = boxes.scores[new]
        count[tubes] = 1
        current = np.concatenate([current, tubes])
    return tube_of


def build_tubes(boxes: FrameBoxes, tube_of: np.ndarray) -> Tubes:
    """Tubes of boxes (N,) that belong to tubes (N,), each made free of gaps.

    Boxes and box scores between two linked boxes are interpolated; they do not count
    for the tube's score.
    """
    order = np.lexsort((boxes.frames, tube_of, boxes.sequences))
    boxes, tube_of = take(boxes, order), tube_of[order]
    starts = np.flatnonzero(first_of_runs(tube_of))
    linked = np.diff(np.append(starts, len(tube_of)))
    first_frames = boxes.frames[starts]
    lengths = boxes.frames[starts + linked - 1] - first_frames + 1
    row_starts = np.cumsum(lengths) - lengths
    # Rows of all tubes in one line; each tube's first and last are known, so that
    # nothing is interpolated between tubes.
    known = boxes.frames + np.repeat(row_starts - first_frames, linked)
    rows = np.arange(lengths.sum())
    columns = np.column_stack([boxes.bboxes, boxes.scores]).T
    filled = [np.interp(rows, known, column) for column in columns] if len(rows) else []
    table = np.array(filled).reshape(5, len(rows)).T
    return Tubes(
        boxes.sequences[starts],
        np.add.reduceat(boxes.scores, starts) / linked if len(starts) else np.zeros(0),
        lengths,
        rows + np.repeat(first_frames - row_starts, lengths),
        table[:, :4],
        table[:, 4],
    )


def trim_tubes(tubes: Tubes, cost: float) -> Tubes:
    """The parts of each tube that show the action, as tubes of their own.

    Each row is labelled action or background so that the sum of the scores s of
    action rows and 1 - s of background rows, less ``cost`` for each change of label,
    is greatest. A part's score is the mean of its box scores.

    Source: the second pass of Saha et al., Deep learning for detecting multiple
    space-time action tubes in videos, BMVC 2016.
    """
    of_tubes = np.split(tubes.box_scores, tubes.ends)
    is_action = np.concatenate([label_action(scores, cost) for scores in of_tubes])
    tube = np.repeat(np.arange(len(tubes.lengths)), tubes.lengths)
    rows = np.flatnonzero(is_action)
    broken = np.append(True, np.diff(rows) > 1)[: len(rows)]
    starts = np.flatnonzero(broken | first_of_runs(tube[rows]))
    lengths = np.diff(np.append(starts, len(rows)))
    scores = tubes.box_scores[rows]
    return Tubes(
        tubes.sequences[tube[rows[starts]]],
        np.add.reduceat(scores, starts) / lengths if len(starts) else np.zeros(0),
        lengths,
        tubes.frames[rows],
        tubes.bboxes[rows],
        scores,
    )


def label_action(scores: np.ndarray, cost: float) -> np.ndarray:
    """Rows (n,) labelled action by the best labelling, see ``trim_tubes``."""
    # What action is ahead of background by, after each row, under best play. A change
    # pays where the lead exceeds its cost, which bounds it.
    lead = 0.0
    leads = []
    for gain in (2 * scores - 1).tolist():
        lead = min(max(lead, -cost), cost) + gain
        leads.append(lead)
    labels = np.empty(len(leads), dtype=bool)
    label = lead > 0
    for row in reversed(range(len(leads))):
        # A row's label follows the next row's unless the lead pays for a change.
        if abs(leads[row]) > cost:
            label = leads[row] > 0
        labels[row] = label
    return labels


def _select(tubes: Tubes, linking: Linking) -> Tubes:
    """Tubes that score high enough and last long enough."""
    high = tubes.scores >= linking.min_score
    return take_tubes(tubes, high & (tubes.lengths >= linking.min_length))
