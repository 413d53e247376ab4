"""The truth for queries that are matched to persons.

Shapes: S stages, B clips, Q queries, A actions, N persons of a batch; [K]: of tubelets
there is a value for each of the K frames.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stmixer_mm.models.data_preprocessor import move_together
from stmixer_mm.models.heads.matching import BACKGROUND, PERSON, Matching, Truth
from stmixer_mm.structures import ABSENT, PRESENT, UNKNOWN, Matched


class Rows(NamedTuple):
    """Rows of predictions whose leading sizes (S, B, Q, [K]) are flattened.

    Each group of queries has its own S stages, one group after the other.
    """

    index: Tensor  # (n,), ascending in a stage
    stages: Tensor  # (n,): the stage of each, ascending
    totals: Tensor  # (S,): how many there are of each
    sizes: list[int]  # the same on the host
    is_all: bool  # all rows in their order

    def of(self, values: Tensor) -> Tensor:
        """Rows (n, ·) of flattened values."""
        return values if self.is_all else values.index_select(0, self.index)

    def sum(self, values: Tensor) -> Tensor:
        """Sums (S,) over the stages, of values (n, ·)."""
        numbers = torch.arange(len(self.sizes), device=values.device)
        sums = values.flatten(1).sum(dim=1) if values.dim() > 1 else values
        return sums.where(self.stages == numbers[:, None], 0).sum(dim=1)


class Targets(NamedTuple):
    """Truth for the queries of all stages."""

    counted: Rows  # where person labels count
    person_labels: Tensor  # (n,) of them: PERSON or BACKGROUND
    boxed: Rows  # where the matched persons have a box
    bboxes: Tensor  # (n, 4) of them: pixel xyxy
    box_scale: Tensor  # (n, 4) of them: w, h, w, h of the frame without padding
    acting: Rows  # where they have actions: in (S, B, Q), or as their boxes
    actions: Tensor  # (n, A) of them: multi-hot
    heard: Rows  # where action logits count if background does
    persons: Tensor  # (B, Q): those of the last stage
    matched: Matched


def make_targets(matching: Matching, truth: Truth, sizes: Sequence[int]) -> Targets:
    """Truth for groups of queries; the indices of all cross to the device in one copy.

    Tubelets are compared in the K frames, and their actions there if the truth has
    ``actions`` (N, K, A).
    """
    persons, states, matched = matching
    firsts = np.cumsum([0, *truth.counts])[:-1, None]
    owners = np.maximum(persons - 1 + firsts, 0)  # rows of the truth
    found = query_states(persons, owners, states, truth.counts)
    boxed, counted = found == PRESENT, found != UNKNOWN
    labels = np.where(boxed, PERSON, BACKGROUND)
    box_rows, box_owners = owners, owners
    if truth.states is not None:
        num_frames = states.shape[1]
        box_rows = owners[..., None] * num_frames + np.arange(num_frames)
        box_owners = np.broadcast_to(owners[..., None], box_rows.shape)
    by_frame = truth.actions.dim() == 3
    acting, rows = (boxed, box_rows) if by_frame else (persons > 0, owners)
    heard = counted.reshape(*acting.shape, -1).any(axis=-1)
    masks = counted, boxed, acting, heard
    found = [find_rows(mask, sizes) for mask in masks]
    counted, boxed, acting, _ = (index for index, *_ in found)
    numbers = (
        *chain(*found),
        labels.ravel()[counted],
        box_rows.ravel()[boxed],
        box_owners.ravel()[boxed],
        rows.ravel()[acting],
        persons[-1],
    )
    *moved, labels, box_rows, box_owners, action_rows, last = move_together(
        [*map(torch.from_numpy, numbers)], truth.bboxes.device
    )
    counted, boxed, acting, heard = (
        Rows(*tensors, totals.tolist(), len(sizes) == 1 and mask.all())
        for mask, (*_, totals), *tensors in zip(
            masks, found, moved[::3], moved[1::3], moved[2::3], strict=True
        )
    )
    actions = truth.actions.flatten(0, -2)
    return Targets(
        counted=counted,
        person_labels=labels,
        boxed=boxed,
        bboxes=truth.bboxes.view(-1, 4)[box_rows],
        box_scale=truth.person_scales[box_owners],
        acting=acting,
        actions=actions[action_rows],
        heard=heard,
        persons=last,
        matched=matched,
    )


def find_rows(
    mask: np.ndarray, sizes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a mask (S, B, Q, [K]) is true: the first fields of :class:`Rows`."""
    num_stages, firsts = len(mask), len(mask) * np.arange(len(sizes))
    places = mask.nonzero()
    stages = np.repeat(firsts, sizes)[places[2]] + places[0]
    order = stages.argsort(kind='stable')
    index = np.ravel_multi_index(places, mask.shape)[order]
    totals = np.bincount(stages, minlength=num_stages * len(sizes))
    return index, stages[order], totals


def query_states(
    persons: np.ndarray, owners: np.ndarray, states: np.ndarray, counts: Sequence[int]
) -> np.ndarray:
    """States (S, B, Q, [K]) of the persons of queries.

    Without a person a query is absent, but unknown in frames where no state of its clip
    is known.

    Args:
        persons: (S, B, Q)
        owners: Their rows of ``states``.
        states: Of the persons, (N, [K]).
        counts: Persons of each clip.
    """
    alone = np.full((len(counts), 1, *states.shape[1:]), ABSENT)
    of_clips = np.split(states, np.cumsum(counts)[:-1])
    for clip, of_clip in enumerate(of_clips):
        if len(of_clip):
            alone[clip, (of_clip == UNKNOWN).all(axis=0)[None]] = UNKNOWN
    table = states if len(states) else alone[0]
    persons = persons.reshape(*persons.shape, *[1] * (states.ndim - 1))
    found = np.where(persons > 0, table[owners], alone)
    return np.where(persons < 0, UNKNOWN, found)
