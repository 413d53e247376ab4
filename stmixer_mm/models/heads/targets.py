"""The truth of a batch, and the targets that it sets for queries, all on the host.

Shapes: B clips, Q queries, A actions, k persons of a clip, n rows; [K]: of tubelets
there is a value for each of the K frames.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stmixer_mm.structures import ABSENT, PRESENT, UNKNOWN

PERSON, BACKGROUND = 0, 1  # columns of the person logits


class Truth(NamedTuple):
    """Rows of a batch: for each clip nobody, its persons, and the unknown person."""

    firsts: np.ndarray  # (B, 1): rows of nobody
    sizes: np.ndarray  # (B, 1): k + 2
    bboxes: np.ndarray  # (rows, [K], 4): pixel xyxy
    actions: np.ndarray  # (rows, A), or in each frame (rows, K, A): multi-hot
    states: np.ndarray  # (rows, [K])
    scales: np.ndarray  # (rows, 4): w, h, w, h of the clip's frames without padding

    @classmethod
    def of(
        cls,
        clips: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
        img_shapes: Sequence[tuple[int, int]],
    ) -> 'Truth':
        """The truth of the boxes, labels and states of clips."""
        sizes = np.array([[len(states) + 2] for *_, states in clips])
        bboxes, labels, states = zip(*clips, strict=True)
        scales = [(w, h, w, h) for h, w in img_shapes]
        return cls(
            firsts=sizes.cumsum(axis=0) - sizes,
            sizes=sizes,
            bboxes=np.concatenate([add_ends(rows) for rows in bboxes]),
            actions=np.concatenate([add_ends(rows[..., 1:]) for rows in labels]),
            states=np.concatenate([add_end_states(rows) for rows in states]),
            scales=np.repeat(scales, sizes[:, 0], axis=0).astype(np.float32),
        )


def add_ends(rows: np.ndarray) -> np.ndarray:
    return np.pad(rows, ((1, 1), *[(0, 0)] * (rows.ndim - 1)))


def add_end_states(states: np.ndarray) -> np.ndarray:
    """States (k, [K]) between those of nobody and of the unknown.

    Nobody is absent, but unknown in frames where no person's state is known.
    """
    states = np.pad(
        states, ((1, 1), *[(0, 0)] * (states.ndim - 1)), constant_values=UNKNOWN
    )
    is_known = (states != UNKNOWN).any(axis=0) | (len(states) == 2)
    states[0] = np.where(is_known, ABSENT, UNKNOWN)
    return states


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
        persons: (B, Q), see :meth:`.SetCriterion.loss_and_match`.
        truth: That of the B clips.
        single_label: Actions are class numbers, of all queries that count.
    """
    rows = (truth.firsts + persons % truth.sizes).ravel()  # -1 is the last of a clip
    states = truth.states[rows]
    is_known, has_box = states != UNKNOWN, states == PRESENT
    in_frames = truth.actions.ndim == 3
    has_person = has_box if in_frames else persons.ravel() > 0
    actions, has_actions = truth.actions[rows], has_person
    if single_label:
        numbers = actions.argmax(axis=-1) + 1
        actions = np.where(has_person & actions.any(axis=-1), numbers, 0)
        has_actions = is_known
        if states.ndim > actions.ndim:
            has_actions = is_known.any(axis=-1)
    box_scale = truth.scales[rows]
    if states.ndim == 2:
        box_scale = box_scale[:, None].repeat(states.shape[1], axis=1)
    return Targets(
        person_rows=is_known.ravel().nonzero()[0],
        persons=np.where(has_box, PERSON, BACKGROUND)[is_known],
        box_rows=has_box.ravel().nonzero()[0],
        bboxes=truth.bboxes[rows][has_box],
        box_scale=box_scale[has_box],
        action_rows=has_actions.ravel().nonzero()[0],
        actions=actions[has_actions],
    )
