"""The truth of clips, and the targets that it sets for queries, all on the host.

Shapes: B clips, Q queries, k persons of a clip, A actions, n rows; [K]: of tubelets there
is a value for each of the K frames.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stmixer_mm.structures import ABSENT, PRESENT, UNKNOWN

PERSON, BACKGROUND = 0, 1  # columns of the person logits


class ClipTruth(NamedTuple):
    """Nobody, the k persons of a clip, and what is unknown: rows 0, 1 to k, -1."""

    bboxes: np.ndarray  # (k + 2, [K], 4): pixel xyxy
    actions: np.ndarray  # (k + 2, A), or in each frame (k + 2, K, A): multi-hot
    states: np.ndarray  # (k + 2, [K])
    scale: np.ndarray  # (4,): w, h, w, h of the frames without padding

    @classmethod
    def of(
        cls,
        bboxes: np.ndarray,
        labels: np.ndarray,
        states: np.ndarray,
        img_shape: tuple[int, int],
    ) -> 'ClipTruth':
        """The truth of k persons."""
        # Nobody is absent, but unknown in frames where no person's state is known.
        is_unknown = (states == UNKNOWN).all(axis=0) & (len(states) > 0)
        nobody = np.where(is_unknown, UNKNOWN, ABSENT)[None]
        states = np.concatenate([nobody, states, np.full_like(nobody, UNKNOWN)])
        bboxes, actions = (
            np.pad(values, [(1, 1), *[(0, 0)] * (values.ndim - 1)])
            for values in (bboxes, labels[..., 1:])
        )
        return cls(bboxes, actions, states, np.float32([*img_shape[::-1]] * 2))


class Targets(NamedTuple):
    """Truth for the queries of a stage; rows are those of predictions (B Q [K], ·)."""

    person_rows: Tensor  # (n,)
    persons: Tensor  # (n,): PERSON or BACKGROUND
    box_rows: Tensor  # (n,)
    bboxes: Tensor  # (n, 4): pixel xyxy
    box_scale: Tensor  # (n, 4): w, h, w, h of the frame without padding
    action_rows: Tensor  # (n,): of (B Q), or in each frame of (B Q K)
    actions: Tensor  # (n, A): multi-hot; of a softmax (n,), with 0 for background


def make_targets(
    persons: np.ndarray, truth: Sequence[ClipTruth], single_label: bool
) -> Targets:
    """Truth for queries that stand for persons.

    Args:
        persons: (B, Q), see :meth:`.SetCriterion.loss`.
        truth: That of the B clips.
        single_label: Actions are class numbers, of all queries that count.
    """
    *fields, scales = zip(*truth, strict=True)
    bboxes, actions, states = (
        np.stack([values[rows] for values, rows in zip(field, persons, strict=True)])
        for field in fields
    )
    is_known, has_box = states != UNKNOWN, states == PRESENT
    has_actions = has_box if actions.ndim == 4 else persons > 0
    if single_label:
        is_acting = has_actions & actions.any(axis=-1)
        actions = np.where(is_acting, actions.argmax(axis=-1) + 1, 0)
        is_of_clip = actions.ndim < is_known.ndim
        has_actions = is_known.any(axis=-1) if is_of_clip else is_known
    targets = Targets(
        person_rows=np.flatnonzero(is_known),
        persons=np.where(has_box, PERSON, BACKGROUND)[is_known],
        box_rows=np.flatnonzero(has_box),
        bboxes=bboxes[has_box],
        box_scale=np.stack(scales)[has_box.nonzero()[0]],
        action_rows=np.flatnonzero(has_actions),
        actions=actions[has_actions],
    )
    return Targets(*map(torch.from_numpy, targets))
