"""The truth of a batch, and the targets that it sets for queries, all on the host.

Shapes: B clips, Q queries, A actions, N persons of all clips, n rows; [K]: of tubelets
there is a value for each of the K frames.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from mmaction.structures import ActionDataSample

from stmixer_mm.structures import ABSENT, PRESENT, UNKNOWN

PERSON, BACKGROUND = 0, 1  # columns of the person logits


class Truth(NamedTuple):
    """The N persons, in the order of the clips; then nobody of each clip; the unknown."""

    firsts: np.ndarray  # (B, 1): rows of the first persons
    bboxes: np.ndarray  # (N + B + 1, [K], 4): pixel xyxy
    actions: np.ndarray  # (N + B + 1, A), or in each frame (·, K, A): multi-hot
    states: np.ndarray  # (N + B + 1, [K])
    scales: np.ndarray  # (B, 4): w, h, w, h of the clip's frames without padding

    @classmethod
    def of(
        cls, fields: Mapping[str, np.ndarray], data_samples: Sequence[ActionDataSample]
    ) -> 'Truth':
        """The truth of the persons' bboxes and labels, and maybe their states."""
        bboxes, labels = fields['bboxes'], fields['labels']
        states = fields.get('states', np.full(len(bboxes), PRESENT))
        counts = [len(sample.gt_instances.bboxes) for sample in data_samples]
        ends = np.cumsum(counts)
        # Nobody is absent, but unknown in frames where no person's state is known.
        is_known = [
            (clip != UNKNOWN).any(axis=0) | (len(clip) == 0)
            for clip in np.split(states, ends[:-1])
        ]
        nobody = np.where(is_known, ABSENT, UNKNOWN)
        shapes = [sample.metainfo['img_shape'] for sample in data_samples]
        return cls(
            firsts=(ends - counts)[:, None],
            bboxes=pad_rows(bboxes, len(counts) + 1),
            actions=pad_rows(labels[..., 1:], len(counts) + 1),
            states=np.concatenate([states, nobody, np.full_like(nobody[:1], UNKNOWN)]),
            scales=np.array([(w, h, w, h) for h, w in shapes], np.float32),
        )


def pad_rows(values: np.ndarray, count: int) -> np.ndarray:
    return np.pad(values, [(0, count), *[(0, 0)] * (values.ndim - 1)])


class Targets(NamedTuple):
    """Truth for the queries of a stage; rows are those of predictions (B Q [K], ·)."""

    person_rows: np.ndarray  # (n,)
    persons: np.ndarray  # (n,): PERSON or BACKGROUND
    box_rows: np.ndarray  # (n,)
    bboxes: np.ndarray  # (n, 4): pixel xyxy
    box_scale: np.ndarray  # (n, 4): w, h, w, h of the frame without padding
    action_rows: np.ndarray  # (n,): of (B Q), or in each frame of (B Q K)
    actions: np.ndarray  # (n, A): multi-hot; of a softmax (n,), with 0 for background


def make_targets(persons: np.ndarray, truth: Truth, single_label: bool) -> Targets:
    """Truth for queries that stand for persons.

    Args:
        persons: (B, Q), see :meth:`.SetCriterion.loss`.
        truth: That of the B clips.
        single_label: Actions are class numbers, of all queries that count.
    """
    nobody = np.arange(-len(persons) - 1, -1)[:, None]
    rows = np.where(persons > 0, truth.firsts + persons - 1, nobody)
    rows[persons < 0] = -1
    states, actions = truth.states[rows], truth.actions[rows]
    is_known, has_box = states != UNKNOWN, states == PRESENT
    has_person = has_box if actions.ndim == 4 else persons > 0
    has_actions = has_person
    if single_label:
        numbers = actions.argmax(axis=-1) + 1
        actions = np.where(has_person & actions.any(axis=-1), numbers, 0)
        has_actions = is_known
        if states.ndim > actions.ndim:
            has_actions = is_known.any(axis=-1)
    clips = has_box.nonzero()[0]
    return Targets(
        person_rows=np.flatnonzero(is_known),
        persons=np.where(has_box, PERSON, BACKGROUND)[is_known],
        box_rows=np.flatnonzero(has_box),
        bboxes=truth.bboxes[rows][has_box],
        box_scale=truth.scales[clips],
        action_rows=np.flatnonzero(has_actions),
        actions=actions[has_actions],
    )
