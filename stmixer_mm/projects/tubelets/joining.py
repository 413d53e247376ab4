"""Tubelets of clips that overlap, joined to persons in every frame of a video.

n tubelets in the K frames of a clip, A actions; frames are counted from 0.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np

from stmixer_mm.evaluation.functional.linking import overlap_weights
from stmixer_mm.evaluation.functional.tubelet_linking import (
    TubeletLinker,
    at_every_frame,
    boxes_where_present,
)


class ClipTubelets(NamedTuple):
    """The tubelets of a clip."""

    frames: np.ndarray  # (K,) int, rising; repeated beyond an end of the video
    bboxes: np.ndarray  # (n, K, 4) xyxy
    person_scores: np.ndarray  # (n, K)
    action_scores: np.ndarray  # (n, A + 1), or in each frame (n, K, A + 1)
    scores: np.ndarray  # (n,)


class FramePersons(NamedTuple):
    """The m persons in a frame."""

    frame: int
    ids: np.ndarray  # (m,) int, rising: numbers of tubes
    bboxes: np.ndarray  # (m, 4) xyxy
    action_scores: np.ndarray  # (m, A + 1)
    person_scores: np.ndarray  # (m,)


class _Span(NamedTuple):
    """The tubelets of a clip in F frames, each from its first to its last."""

    frames: range
    ids: np.ndarray  # (n,) int
    table: np.ndarray  # (n, F, 4 + 1 + A + 1): boxes, person and action scores


def join_tubelets(
    clips: Iterable[ClipTubelets],
    linker: TubeletLinker,
    *,
    presence: float,
    overlap: str = 'hann',
) -> Iterator[FramePersons]:
    """The persons of each frame that a clip covers.

    Between the frames of a clip boxes move in straight lines. Of several tubelets of a
    tube in a frame, boxes and scores are means weighted by ``overlap_weights``, and boxes
    and action scores by person scores, too.

    Args:
        clips: In order of time; taken as the frames need them.
        linker: Gives tubelets the numbers of their tubes.
        presence: Person score, a mean too, from which a person is in a frame.
        overlap: ``'equal'`` or ``'hann'``.

    Yields:
        Frames in order of time, each as soon as no later clip covers it.
    """
    spans: list[_Span] = []
    done = 0
    for clip in chain(clips, [None]):
        if clip is not None:
            next_frame = int(clip.frames[0])
        else:
            next_frame = max((span.frames.stop for span in spans), default=0)
        for frame in range(done, next_frame):
            covering = [span for span in spans if frame in span.frames]
            if covering:
                yield _join_frame(frame, covering, presence, overlap)
        done = next_frame
        spans = [span for span in spans if span.frames.stop > done]
        if clip is not None:
            spans.append(_span(clip, linker, presence))


def _span(clip: ClipTubelets, linker: TubeletLinker, presence: float) -> _Span:
    scores = clip.action_scores
    if scores.ndim == 2:
        scores = scores[:, None].repeat(len(clip.frames), axis=1)
    table = np.concatenate([clip.bboxes, clip.person_scores[..., None], scores], axis=2)
    frames, table = at_every_frame(clip.frames, table)
    # In every frame, so that clips of any distance share some; counted from 1.
    numbers = np.array(frames) + 1
    bboxes = boxes_where_present(numbers, table[..., :4], table[..., 4], presence)
    return _Span(frames, linker.extend(numbers, bboxes, clip.scores), table)


def _join_frame(
    frame: int, spans: list[_Span], presence: float, overlap: str
) -> FramePersons:
    ids = np.concatenate([span.ids for span in spans])
    rows = np.concatenate([span.table[:, frame - span.frames.start] for span in spans])
    shares = [
        overlap_weights(len(span.frames), overlap)[frame - span.frames.start]
        for span in spans
    ]
    shares = np.repeat(shares, [len(span.ids) for span in spans])
    tubes, tube_of = np.unique(ids, return_inverse=True)
    tube_shares = (tube_of == np.arange(len(tubes))[:, None]) * shares  # (tubes, rows)
    person_scores = tube_shares @ rows[:, 4] / tube_shares.sum(axis=1)
    weights = tube_shares * rows[:, 4].clip(1e-6)
    means = weights / weights.sum(axis=1, keepdims=True) @ rows
    present = np.flatnonzero(person_scores >= presence)
    bboxes, action_scores = means[present, :4], means[present, 5:]
    return FramePersons(
        frame, tubes[present], bboxes, action_scores, person_scores[present]
    )
