"""Persons followed from keyframe to keyframe, so that each keeps an id.

n persons at a keyframe, m known from those before, C channels of a query. All trackers
are causal: an id that was given never changes. A tracker is for one video or stream.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from mmdet.models.trackers import BaseTracker
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment

from stmixer_mm.errors import blame, choose
from stmixer_mm.registry import MODELS, build_hosted

_KALMAN = dict(type='KalmanFilter')
DEFAULT_TRACKER = 'query'
TRACKERS = {
    'query': dict(type='stmixer_mm.QueryTracker'),
    'byte': dict(type='mmdet.ByteTracker', motion=_KALMAN),
    'ocsort': dict(type='mmdet.OCSORTTracker', motion=_KALMAN),
}


@runtime_checkable
class Tracker(Protocol):
    """Gives the persons of one keyframe after the other ids that last."""

    def extend(
        self,
        time_s: float,
        bboxes: np.ndarray,  # (n, 4) pixel xyxy
        person_scores: np.ndarray | None,  # (n,)
        vectors: np.ndarray | None,  # (n, C), the model's query vectors
    ) -> np.ndarray:  # (n,) int
        ...


def build_tracker(config: str | Mapping | Tracker) -> Tracker:
    """A tracker for one video.

    Args:
        config: Its name in ``TRACKERS``, a dict of a class in the registry, ours or one of
            mmdet's that need boxes and scores alone, or a tracker itself.

    Raises:
        UserError: it cannot be built; mmdet's need the extra ``tracking``.
    """
    if isinstance(config, Tracker):
        return config
    if isinstance(config, str):
        config = choose('tracker', config, TRACKERS)
    with blame(f'tracker={config} cannot be used', 'install or correct what it names'):
        tracker = build_hosted(dict(config))
        if isinstance(tracker, BaseTracker):
            HostTracker(tracker).extend(0.0, np.zeros((0, 4)))  # some need pictures too
            tracker.reset()
            return HostTracker(tracker)
        if not isinstance(tracker, Tracker):
            raise TypeError(f'{type(tracker).__name__} is no tracker of boxes')
        return tracker


@dataclass
class _Person:
    """What is known of a person, in the end at the last keyframe that showed it."""

    id: int
    time_s: float
    bbox: np.ndarray  # (4,)
    vector: np.ndarray  # (C,), a running mean of length 1
    velocity: np.ndarray  # (4,), of the box's corners, all the same, in pixels a second
    sightings: int = 1


@MODELS.register_module()
class QueryTracker:
    """Assigns the persons of a keyframe to known ones, by place and by look.

    The assignment makes the sum of these as great as it can be: the GIoU of the box with
    the person's last one and with that moved on at constant velocity, of the two the
    mean; the cosine of their query vectors; ``trust`` by how often the person was seen,
    all of it from the fifth time on, so that a second box of somebody does not take over;
    less ``fade`` for each second that it has not been seen. A person has one box at
    most; who is left over is new.

    Args:
        max_gap_s: A person who was not seen for longer is another one.
        min_giou: A box must reach it with one of the two.
        query_weight, trust, fade: Weights.
    """

    def __init__(
        self,
        *,
        max_gap_s: float = 2.0,
        min_giou: float = -0.5,
        query_weight: float = 1.0,
        trust: float = 1.0,
        fade: float = 0.5,
    ) -> None:
        self.max_gap_s = max_gap_s
        self.min_giou = min_giou
        self.query_weight = query_weight
        self.trust = trust
        self.fade = fade
        self._persons: list[_Person] = []
        self._fresh = count()

    def extend(
        self,
        time_s: float,
        bboxes: np.ndarray,
        person_scores: np.ndarray | None = None,
        vectors: np.ndarray | None = None,
    ) -> np.ndarray:
        """See :class:`Tracker`; the scores are of no use to it."""
        bboxes = np.asarray(bboxes, float)
        vectors = np.zeros((len(bboxes), 1)) if vectors is None else vectors
        vectors = _normalised(np.asarray(vectors, float))
        self._persons = [
            one
            for one in self._persons
            if 0 <= time_s - one.time_s <= self.max_gap_s + 1e-6
        ]
        ids = np.full(len(bboxes), -1)
        for known, new in self._assign(time_s, bboxes, vectors):
            person = self._persons[known]
            self._update(person, time_s, bboxes[new], vectors[new])
            ids[new] = person.id
        for new in np.lexsort(bboxes.T[::-1]):  # whatever their order: from the left
            if ids[new] < 0:
                ids[new] = next(self._fresh)
                at_rest = np.zeros(4)
                seen = _Person(ids[new], time_s, bboxes[new], vectors[new], at_rest)
                self._persons.append(seen)
        return ids

    def _assign(
        self, time_s: float, bboxes: np.ndarray, vectors: np.ndarray
    ) -> list[tuple[int, int]]:
        """Pairs of the m known persons and the n new boxes."""
        if not self._persons or not len(bboxes):
            return []
        unseen_s = np.array([time_s - one.time_s for one in self._persons])
        lasts = np.array([one.bbox for one in self._persons])
        velocities = np.array([one.velocity for one in self._persons])
        gious = np.array(
            [
                _giou(lasts, bboxes),
                _giou(lasts + velocities * unseen_s[:, None], bboxes),
            ]
        )
        looks = np.array([one.vector for one in self._persons]) @ vectors.T
        sightings = np.array([one.sightings for one in self._persons])
        trust = self.trust * np.minimum(sightings, 5) / 5 - self.fade * unseen_s
        likeness = gious.mean(axis=0) + self.query_weight * looks + trust[:, None]
        possible = gious.max(axis=0) >= self.min_giou
        pairs = linear_sum_assignment(np.where(possible, likeness, -1e3), maximize=True)
        return [
            (one, new) for one, new in zip(*pairs, strict=True) if possible[one, new]
        ]

    def _update(
        self, person: _Person, time_s: float, bbox: np.ndarray, vector: np.ndarray
    ) -> None:
        passed_s = time_s - person.time_s
        if passed_s > 0:
            moved = (bbox - person.bbox).reshape(2, 2).mean(axis=0) / passed_s
            before = moved if person.sightings == 1 else person.velocity[:2]
            person.velocity = np.tile((before + moved) / 2, 2)
        person.vector = _normalised(person.vector + vector)
        person.time_s, person.bbox = time_s, bbox
        person.sightings += 1


class HostTracker:
    """One of mmdet's trackers, which counts keyframes where ours have times.

    Args:
        tracker: Of those that take boxes and scores, as ``ByteTracker``. A box that it
            gives to nobody, as its score is too low, gets an id that does not come again.
    """

    def __init__(self, tracker: BaseTracker) -> None:
        self._tracker = tracker
        self._fresh = count()
        self._ids: dict[int, int] = defaultdict(self._fresh.__next__)
        self._keyframes = count()

    def extend(
        self,
        time_s: float,
        bboxes: np.ndarray,
        person_scores: np.ndarray | None = None,
        vectors: np.ndarray | None = None,
    ) -> np.ndarray:
        """See :class:`Tracker`; only the order of the keyframes counts."""
        number = len(bboxes)
        scores = np.ones(number) if person_scores is None else person_scores
        # It gives back some of them, in another order: the rows say which.
        rows = torch.as_tensor(np.column_stack([bboxes, scores]), dtype=torch.float32)
        sample = DetDataSample(
            metainfo=dict(frame_id=next(self._keyframes)),
            pred_instances=InstanceData(
                bboxes=rows[:, :4],
                scores=rows[:, 4],
                labels=torch.zeros(number, dtype=torch.long),
            ),
        )
        found = self._tracker.track(data_sample=sample)
        waiting = defaultdict(list)
        for row, one in zip(rows.tolist(), range(number), strict=True):
            waiting[tuple(row)].append(one)
        ids = np.full(number, -1)
        kept = torch.column_stack([found.bboxes, found.scores]).tolist()
        for row, one in zip(kept, found.instances_id.tolist(), strict=True):
            ids[waiting[tuple(row)].pop(0)] = self._ids[one]
        for one in np.flatnonzero(ids < 0):
            ids[one] = next(self._fresh)
        return ids


def _giou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(m, n) of boxes (m, 4) and (n, 4)."""
    first, second = torch.from_numpy(first), torch.from_numpy(second)
    return bbox_overlaps(first, second, mode='giou').numpy()


def _normalised(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., C) of length 1, or of 0 where they have none."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-9)
