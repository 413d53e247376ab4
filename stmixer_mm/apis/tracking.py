"""Persons followed from keyframe to keyframe, so that each keeps an id.

n persons at a keyframe, m known from those before, C channels of a query. Ids are
assigned online and never change. A tracker is for one video or stream.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from statistics import fmean
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from scipy.optimize import linear_sum_assignment

from stmixer_mm.errors import blame, choose
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import Keyframe, Tube, TubeAction

DEFAULT_TRACKER = 'query'
TRACKERS = {'query': dict(type='stmixer_mm.QueryTracker')}
MIN_GIOU, FADE = -0.5, 0.5  # of QueryTracker


@runtime_checkable
class Tracker(Protocol):
    """Assigns ids to the persons of keyframes, in order of time."""

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
        config: Its name in ``TRACKERS``, a dict of a class in the registry MODELS, or a
            tracker itself.

    Raises:
        UserError: it cannot be built, or is no tracker.
    """
    if isinstance(config, str):
        config = choose('tracker', config, TRACKERS)
    with blame(f'tracker={config} cannot be used', 'correct it'):
        built = MODELS.build(config) if isinstance(config, Mapping) else config
        if not isinstance(built, Tracker):
            raise TypeError(f'{type(built).__name__} has no method extend')
        return built


@dataclass
class _Person:
    """A person as of the last keyframe that showed it."""

    id: int
    time_s: float
    bbox: np.ndarray  # (4,)
    vector: np.ndarray  # (C,), a running mean of length 1
    # (4,) of the box's corners, all the same, in pixels a second
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(4))
    sightings: int = 1


@MODELS.register_module()
class QueryTracker:
    """Assigns the persons of a keyframe to known ones, by place and query vector.

    The assignment maximises the sum of: the mean GIoU of the box with the person's last
    one and with that one moved on at constant velocity, of which one is ``MIN_GIOU`` at
    least; the cosine of their query vectors; 1 if the person was seen five times or
    more, less in proportion, so that a second box on a person does not take over its id;
    minus ``FADE`` for each second since the person was last seen. Unassigned boxes get
    new ids.

    Args:
        max_gap_s: Seconds after which an unseen person is forgotten.
    """

    def __init__(self, *, max_gap_s: float = 2.0) -> None:
        self.max_gap_s = max_gap_s
        self._persons: list[_Person] = []
        self._fresh = count()

    def extend(
        self,
        time_s: float,
        bboxes: np.ndarray,
        person_scores: np.ndarray | None = None,
        vectors: np.ndarray | None = None,
    ) -> np.ndarray:
        """See :class:`Tracker`; ``person_scores`` are not used."""
        bboxes = np.asarray(bboxes, float)
        vectors = np.zeros((len(bboxes), 1)) if vectors is None else vectors
        vectors = _normalised(np.asarray(vectors, float))
        self._persons = [
            person
            for person in self._persons
            if 0 <= time_s - person.time_s <= self.max_gap_s + 1e-6
        ]
        ids = np.full(len(bboxes), -1)
        for person_idx, bbox_idx in self._assign(time_s, bboxes, vectors):
            person = self._persons[person_idx]
            self._update(person, time_s, bboxes[bbox_idx], vectors[bbox_idx])
            ids[bbox_idx] = person.id
        for bbox_idx in np.lexsort(bboxes.T[::-1]):  # from left to right
            if ids[bbox_idx] < 0:
                ids[bbox_idx] = next(self._fresh)
                person = _Person(
                    ids[bbox_idx], time_s, bboxes[bbox_idx], vectors[bbox_idx]
                )
                self._persons.append(person)
        return ids

    def _assign(
        self, time_s: float, bboxes: np.ndarray, vectors: np.ndarray
    ) -> list[tuple[int, int]]:
        """Pairs of the m known persons and the n new boxes."""
        if not self._persons or not len(bboxes):
            return []
        unseen_s = np.array([time_s - person.time_s for person in self._persons])
        last_bboxes = np.array([person.bbox for person in self._persons])
        velocities = np.array([person.velocity for person in self._persons])
        predicted_bboxes = last_bboxes + velocities * unseen_s[:, None]
        gious = np.array([_giou(last_bboxes, bboxes), _giou(predicted_bboxes, bboxes)])
        similarities = np.array([person.vector for person in self._persons]) @ vectors.T
        sightings = np.array([person.sightings for person in self._persons])
        trust = np.minimum(sightings, 5) / 5 - FADE * unseen_s
        affinities = gious.mean(axis=0) + similarities + trust[:, None]
        is_possible = gious.max(axis=0) >= MIN_GIOU
        affinities = np.where(is_possible, affinities, -1e3)
        pairs = linear_sum_assignment(affinities, maximize=True)
        return [
            (person_idx, bbox_idx)
            for person_idx, bbox_idx in zip(*pairs, strict=True)
            if is_possible[person_idx, bbox_idx]
        ]

    def _update(
        self, person: _Person, time_s: float, bbox: np.ndarray, vector: np.ndarray
    ) -> None:
        passed_s = time_s - person.time_s
        if passed_s > 0:
            velocity = (bbox - person.bbox).reshape(2, 2).mean(axis=0) / passed_s
            if person.sightings > 1:
                velocity = (person.velocity[:2] + velocity) / 2
            person.velocity = np.tile(velocity, 2)
        person.vector = _normalised(person.vector + vector)
        person.time_s, person.bbox = time_s, bbox
        person.sightings += 1


def _giou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(m, n) of boxes (m, 4) and (n, 4)."""
    first, second = torch.from_numpy(first), torch.from_numpy(second)
    return bbox_overlaps(first, second, mode='giou').numpy()


def _normalised(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., C) of length 1, or of 0 where they have none."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-9)


class _Moment(NamedTuple):
    """A keyframe at which a person does an action."""

    place: int  # among all keyframes
    frame_index: int
    score: float


def list_tubes(keyframes: Iterable[Keyframe]) -> list[Tube]:
    """The tubes of persons with ids, in the order in which they begin.

    An action has an entry for each stretch of successive keyframes with it.
    """
    frames: dict[int, list[int]] = defaultdict(list)
    stretches: dict[int, dict[str, list[list[_Moment]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for place, keyframe in enumerate(keyframes):
        index = keyframe.frame_index
        for person in keyframe.persons:
            frames[person.id].append(index)
            for action in person.actions:
                runs = stretches[person.id][action.action]
                if not runs or runs[-1][-1].place < place - 1:
                    runs.append([])
                runs[-1].append(_Moment(place, index, round(action.score, 4)))
    tubes = []
    for number, indices in frames.items():
        actions = [
            TubeAction(
                action=name,
                score=fmean(moment.score for moment in stretch),
                first_frame=stretch[0].frame_index,
                last_frame=stretch[-1].frame_index,
            )
            for name, runs in stretches[number].items()
            for stretch in runs
        ]
        ends = dict(first_frame=indices[0], last_frame=indices[-1])
        tubes.append(Tube(id=number, **ends, actions=actions))
    return tubes
