"""Suppression of tubelets before linking, and tubes made of them, as pure functions.

A tubelet is a person through the K frames of a clip, with one score; a box of a single
frame is one of K = 1. Frames count from 1, boxes are xyxy in pixels. A sequence is a
class in a video: only its tubelets are compared with each other.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from stmixer_mm.errors import blame, choose
from stmixer_mm.evaluation.functional.matching import aligned_iou, first_of_runs, take
from stmixer_mm.evaluation.functional.tubes import Tubes, join_tubes
from stmixer_mm.structures import PRESENCE

PUBLISHED = 'stmixer_mm.projects.published'


class Tubelets(NamedTuple):
    """N tubelets, in any order."""

    sequences: np.ndarray  # (N,) int
    frames: np.ndarray  # (N, K) int, of the clip, ascending
    bboxes: np.ndarray  # (N, K, 4) float, NaN where there is none
    scores: np.ndarray  # (N,) float


class NumberedBoxes(NamedTuple):
    """``Tubelets`` of single frames, with their numbers."""

    sequences: np.ndarray  # (N,) int
    frames: np.ndarray  # (N, 1) int
    bboxes: np.ndarray  # (N, 1, 4) float
    scores: np.ndarray  # (N,) float
    numbers: np.ndarray  # (N,) int


def has_box(bboxes: np.ndarray) -> np.ndarray:
    """Mask (...) of the boxes (..., 4) that are there."""
    return ~np.isnan(bboxes[..., 0])


@dataclass(frozen=True, kw_only=True)
class Linking:
    """Constants of linking; the defaults are those of ACT.

    "ACT" is Kalogeiton et al., ICCV 2017, by ``BuildTubes`` and ``videoAP`` of its
    scripts; "MOC" is Li et al., ECCV 2020, by its ACT_build.py and ACT.py. Both link
    tubelets of K frames (6 and 7), each one frame after the other; here K and the step
    are any, and tubelets overlap by the mean IoU over the frames in which both have a box.

    Args:
        nms: ``'hard'`` removes tubelets that overlap a higher-scoring one of their clip
            and class (ACT); ``'soft'`` multiplies their score by 1 - IoU, once (MOC);
            None does neither.
        nms_iou: Overlap above which they are (ACT 0.3, MOC 0.6).
        candidates: Best tubelets per clip and class that are compared.
        top_k: Tubelets kept per clip and class (ACT and MOC 10).
        link_iou: A tubelet continues a tube if it overlaps the last one by at least
            this (ACT 0.2, MOC 0.5).
        end_after: Frames after its last box in which a tubelet that continues a tube
            begins; at 0 or less, in its last frames. ACT and MOC count from begin to
            begin: of tubelets of K frames, ACT's 5 are 6 - K here, MOC's K are 1.
            Frames in between get interpolated boxes.
        min_score: Least mean score of a tube (ACT 0.01, MOC 0.005).
        min_length: Least number of frames of a tube (ACT and MOC 15, for all datasets).
        tube_nms_iou: Overlap above which a tube removes lower-scoring ones of its class;
            None keeps them (ACT and MOC 0.3, MultiSports and mmaction2 None).
        acting: Score from which a tubelet with scores in each frame does an action
            there, our own.
        over_classes: Before frame mAP a box, with the best of its scores, removes those of
            all classes.
        nms_pixel, link_pixel, tube_pixel: Pixels of a box beyond x2 - x1 in the
            three IoUs (1 in ACT and MOC; link_pixel 0 in mmaction2).
        overlap: Weights of tubelets where clips overlap, see ``overlap_weights``; our
            own (ACT and MOC ``'equal'``).
        presence: Person score from which a tubelet has a box in a frame, our own; the
            tubelets of both have one everywhere.
    """

    nms: str | None = 'hard'
    nms_iou: float = 0.3
    candidates: int = sys.maxsize
    top_k: int = 10
    link_iou: float = 0.2
    end_after: int = 5
    min_score: float = 0.01
    min_length: int = 15
    tube_nms_iou: float | None = 0.3
    nms_pixel: float = 1
    link_pixel: float = 1
    tube_pixel: float = 1
    presence: float = PRESENCE
    acting: float = 0.3
    over_classes: bool = False
    overlap: str = 'equal'

    def __post_init__(self) -> None:
        choose('nms', self.nms, dict.fromkeys(('hard', 'soft', None)))
        choose('overlap', self.overlap, dict.fromkeys(('equal', 'hann')))


class VideoLinking(Protocol):
    """Another way of linking: a dataclass of its constants, of frames' boxes alone.

    The boxes of a frame come in order of x1, y1, x2, y2, or as predicted to a class with
    ``by_lines = True``.
    """

    def link_video(
        self, length: int, frames: np.ndarray, bboxes: np.ndarray, scores: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, float]]:
        """Column, rows (k, 5) of frame and box, and score of each tube of a video.

        Args:
            length: Frames of the video.
            frames: (n,), ascending.
            bboxes: (n, 4) in pixels.
            scores: (n, classes), 0 where a box has none.
        """


LINKINGS: dict[str, Linking | VideoLinking] = {
    'act': Linking(),
    # With K = 1.
    'moc': Linking(nms='soft', nms_iou=0.6, link_iou=0.5, end_after=1, min_score=0.005),
}
# mmaction2's link_tubes, MOC's with K = 1, apart from its mistake of giving all boxes of
# a video the score of one.
LINKINGS['multisports'] = replace(LINKINGS['moc'], tube_nms_iou=None, link_pixel=0)

# Suppression in each frame and class before frame mAP, in which tubelets of K frames
# give up to K boxes for a person.
FRAME_NMS = {
    name: replace(LINKINGS[name], top_k=sys.maxsize) for name in ('act', 'moc')
}


def parse_linking(linking: str | Mapping[str, Any]) -> Linking | VideoLinking:
    """Constants by name, or a dict of those that differ from a named base.

    Raises:
        UserError: a name is unknown.
    """
    changes = dict(base=linking) if isinstance(linking, str) else dict(linking)
    base = changes.pop('base', 'act')
    constants = choose('linking', base, LINKINGS, more=PUBLISHED)
    names = ', '.join(vars(constants))
    with blame(f'linking={linking!r} cannot be used', f'it may have base, {names}'):
        return replace(constants, **changes)


Boxes = TypeVar('Boxes', Tubelets, NumberedBoxes)


def suppress_tubelets(tubelets: Boxes, linking: Linking) -> Boxes:
    """The best tubelets, sorted by clip, sequence and descending score."""
    tubelets, clips = _best_first(tubelets, linking.candidates)
    if linking.nms is not None:
        tubelets = _suppress(tubelets, clips, linking)
    return _best_first(tubelets, linking.top_k)[0]


def _best_first(tubelets: Tubelets, top_k: int) -> tuple[Tubelets, np.ndarray]:
    """The best of each clip and sequence, by these, then by descending score.

    Also the number (N,) of the clip and sequence.
    """
    keys = -tubelets.scores, tubelets.sequences, *tubelets.frames.T[::-1]
    tubelets = take(tubelets, np.lexsort(keys))
    is_first = first_of_runs(*tubelets.frames.T, tubelets.sequences)
    clips = np.cumsum(is_first)
    best = np.arange(len(clips)) - np.searchsorted(clips, clips) < top_k
    return take(tubelets, best), clips[best]


def _suppress(tubelets: Tubelets, clips: np.ndarray, linking: Linking) -> Tubelets:
    """Remove tubelets that overlap a better one too much, or lower their scores."""
    scores, is_kept = tubelets.scores.copy(), np.ones(len(clips), dtype=bool)
    candidates = np.arange(len(clips))
    while len(candidates):
        is_first = first_of_runs(clips[candidates])
        best = candidates[is_first][np.cumsum(is_first) - 1][~is_first]
        candidates = candidates[~is_first]
        first, second = tubelets.bboxes[candidates], tubelets.bboxes[best]
        iou = clip_iou(first, second, pixel=linking.nms_pixel)
        is_suppressed = iou > linking.nms_iou
        if linking.nms == 'hard':
            is_kept[candidates[is_suppressed]] = False
        else:
            scores[candidates[is_suppressed]] *= 1 - iou[is_suppressed]
        candidates = candidates[~is_suppressed]
    return take(tubelets._replace(scores=scores), is_kept)


def overlap_weights(num_frames: int, overlap: str) -> np.ndarray:
    """Weights (K,) of a clip's frames: all 1, or a Hann window, falling to its ends."""
    if overlap == 'equal':
        return np.ones(num_frames)
    return np.sin(np.pi * (np.arange(num_frames) + 0.5) / num_frames) ** 2


def clip_iou(first: np.ndarray, second: np.ndarray, *, pixel: float) -> np.ndarray:
    """Mean IoU (P,) of tubelets (P, K, 4) of the same K frames, pair by pair.

    It is over the frames in which both have a box, NaN if there is none.
    """
    ious = aligned_iou(first, second, pixel=pixel)
    is_shared = has_box(first) & has_box(second)
    count, undefined = is_shared.sum(axis=1), np.full(len(is_shared), np.nan)
    return np.divide(ious.sum(axis=1), count, out=undefined, where=count > 0)


def build_tubes(tubelets: Tubelets, tube_of: np.ndarray, linking: Linking) -> Tubes:
    """Tubes that score enough and are long enough, of tubelets (N,) in tubes (N,).

    The box of a frame is the mean, weighted by ``overlap``, of those that tubelets have
    there, or interpolated between two such frames. A tube's score is the mean of its
    tubelets.
    """
    is_present, counts = has_box(tubelets.bboxes), np.bincount(tube_of)
    scores = np.bincount(tube_of, tubelets.scores) / counts
    first, last = np.full(len(counts), sys.maxsize), np.zeros(len(counts), dtype=int)
    np.minimum.at(
        first, tube_of, np.where(is_present, tubelets.frames, sys.maxsize).min(axis=1)
    )
    np.maximum.at(last, tube_of, np.where(is_present, tubelets.frames, 0).max(axis=1))
    is_long = last - first + 1 >= linking.min_length
    numbers = np.flatnonzero(is_long & (scores >= linking.min_score))
    weights = overlap_weights(is_present.shape[1], linking.overlap)
    weights = np.broadcast_to(weights, is_present.shape)
    members = np.split(np.argsort(tube_of, kind='stable'), np.cumsum(counts)[:-1])
    tubes = []
    for tube in numbers:
        indices = members[tube]
        is_box = is_present[indices]
        bboxes = tubelets.bboxes[indices][is_box]
        unique_frames, frame_of = np.unique(
            tubelets.frames[indices][is_box], return_inverse=True
        )
        shares = weights[indices][is_box][:, None]
        totals = np.bincount(frame_of, shares[:, 0])[frame_of, None]
        means = np.zeros((len(unique_frames), 4))
        np.add.at(means, frame_of, shares * bboxes / totals)
        all_frames = np.arange(unique_frames[0], unique_frames[-1] + 1)
        filled = [np.interp(all_frames, unique_frames, side) for side in means.T]
        rows = np.column_stack([all_frames, *filled])
        tubes.append((tubelets.sequences[indices[0]], rows, scores[tube]))
    return join_tubes(tubes)
