"""Persons among the queries: their scores, their matching and the truth for them.

Shapes: S stages, B clips, Q queries, A actions, N persons of a batch, k of a clip; [K]:
of tubelets there is a value for each of the K frames.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmdet.models.task_modules.assigners import (
    BBoxL1Cost,
    ClassificationCost,
    FocalLossCost,
    HungarianAssigner,
    IoUCost,
)
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from stmixer_mm.models.boxes import frame_scales
from stmixer_mm.registry import TASK_UTILS
from stmixer_mm.structures import PRESENT, UNKNOWN, Matched, StageOutput

Samples = Sequence[ActionDataSample]

PERSON, BACKGROUND = 0, 1  # columns of the person logits
# These cost the same in units of the frame as in pixels, so that one call compares the
# queries of all clips. In a frame of this size the eps of the IoUs stays negligible.
SCALE_FREE = BBoxL1Cost, ClassificationCost, FocalLossCost, IoUCost
SIDE = 1024


def person_margin(person_logits: Tensor) -> Tensor:
    """Log-odds of a person, (..., 2) to (...); their sigmoid is the person score."""
    return person_logits[..., PERSON] - person_logits[..., BACKGROUND]


def score_persons(person_logits: Tensor) -> Tensor:
    """Probability of a person, (..., 2) to (...)."""
    return person_logits.softmax(dim=-1)[..., PERSON]


class Truth(NamedTuple):
    """The persons of a batch, one clip after the other."""

    counts: list[int]  # of each clip
    bboxes: Tensor  # (N, [K], 4): pixel xyxy, float32
    actions: Tensor  # (N, A), or in each frame (N, K, A): multi-hot, float32
    states: Tensor | None  # (N, K), of tubelets
    scales: Tensor  # (B, 4): w, h, w, h of the clip's frames without padding
    person_scales: Tensor  # (N, 4): the same for each person

    @classmethod
    def of(cls, data_samples: Samples, device: torch.device) -> 'Truth':
        persons = [sample.gt_instances for sample in data_samples]
        counts = [len(one.bboxes) for one in persons]
        bboxes, labels, *states = (
            torch.cat([one[name] for one in persons]).to(device)
            for name in ('bboxes', 'labels', 'states')
            if name in persons[0]
        )
        bboxes = bboxes.float()
        shapes = [sample.metainfo['img_shape'] for sample in data_samples]
        of_persons = np.repeat(shapes, counts, axis=0).tolist()
        scales = frame_scales(shapes + of_persons, bboxes)
        return cls(
            counts,
            bboxes,
            labels[..., 1:].float(),
            states[0] if states else None,
            *scales.split((len(counts), len(bboxes))),
        )


class Matching(NamedTuple):
    """Assignments, on the CPU."""

    persons: np.ndarray  # (S, B, Q), see SetCriterion.loss_and_match
    states: np.ndarray  # (N, [K]), of the truth
    last: Matched


def match_persons(
    stages: StageOutput,
    truth: Truth,
    known: np.ndarray,
    data_samples: Samples,
    *,
    first: int,
    assigner: object,
    check: Callable[[], None],
) -> Matching:
    """Match the queries of all stages and clips; the host waits for the device once.

    Args:
        stages: Predictions (S, B, Q, ·), float32.
        truth: The persons of the B clips.
        known: (B, n), see :meth:`.SetCriterion.loss_and_match`.
        data_samples: The B clips.
        first: Queries of the first group; the others are all known.
        assigner: One of mmdet's.
        check: Tells why costs are not finite, by an error.
    """
    num_stages, num_clips, num_queries = stages.bboxes.shape[:3]
    own = num_queries - known.shape[1]
    taken = known[:, : first - own]
    together = is_scale_free(assigner)
    if not own:
        found = stages.bboxes.new_zeros(num_stages, num_clips, 0)
    elif together:
        found = compare(stages, truth, own, assigner.match_costs)
    else:
        found = match_clips(stages, taken, data_samples, assigner, own)
    states = found[:0] if truth.states is None else truth.states
    last = stages.person_logits[-1], stages.bboxes[-1]
    found, states, *last = to_host(found, states, *last)
    if own and together:
        if not np.isfinite(found).all():
            check()
        found = assign(found, taken, truth.counts)
    if truth.states is None:
        states = np.full(len(truth.bboxes), PRESENT)
    persons = np.zeros((num_stages, num_clips, num_queries), int)
    persons[..., :own] = found
    persons[..., own:] = known
    return Matching(persons, states, Matched(persons[-1], *last))


def to_host(*values: Tensor) -> list[np.ndarray]:
    """Several tensors in one copy, as float32."""
    flat = torch.cat([value.flatten().float() for value in values])
    ends = np.cumsum([value.numel() for value in values])
    parts = np.split(flat.detach().cpu().numpy(), ends[:-1])
    return [part.reshape(v.shape) for part, v in zip(parts, values, strict=True)]


def is_scale_free(part: object) -> bool:
    """Whether :func:`compare` and :func:`assign` do what an assigner, or cost, does."""
    if type(part) is HungarianAssigner:
        return all(map(is_scale_free, part.match_costs))
    if type(part) is TubeletCost:
        return all(map(is_scale_free, (*part.person_costs, *part.box_costs)))
    return type(part) in SCALE_FREE


def compare(
    stages: StageOutput, truth: Truth, own: int, match_costs: Sequence[Callable]
) -> Tensor:
    """Costs of the first ``own`` queries for all persons of the batch, (S, B, own, N)."""
    bboxes = stages.bboxes[:, :, :own]
    size = *bboxes.shape[:3], len(truth.bboxes)
    if not size[-1]:
        return bboxes.new_zeros(size)
    units, person_units = truth.scales / SIDE, truth.person_scales / SIDE
    units = units.view(-1, *[1] * (bboxes.dim() - 3), 4)
    person_units = person_units.view(-1, *[1] * (truth.bboxes.dim() - 2), 4)
    queries = as_queries(
        stages.person_logits[:, :, :own].flatten(0, 2), (bboxes / units).flatten(0, 2)
    )
    persons = as_persons(truth.bboxes / person_units, truth.states)
    img_meta = dict(img_shape=(SIDE, SIDE))
    return sum(cost(queries, persons, img_meta=img_meta) for cost in match_costs).view(
        size
    )


def as_queries(person_logits: Tensor, bboxes: Tensor) -> InstanceData:
    """Queries, (n, [K], ·), as mmdet's assigners and costs take them."""
    # Logits (margin, 0) and (person, background) have the same softmax to the bit,
    # and the sigmoid of the margin is right as well: costs of both types fit.
    margin = person_margin(person_logits)
    scores = torch.stack((margin, torch.zeros_like(margin)), dim=-1)
    return InstanceData(scores=scores, bboxes=bboxes, priors=bboxes)


def as_persons(bboxes: Tensor, states: Tensor | None) -> InstanceData:
    """The same for persons."""
    labels = bboxes.new_full((len(bboxes),), PERSON, dtype=torch.long)
    persons = InstanceData(labels=labels, bboxes=bboxes)
    if states is not None:
        persons.states = states
    return persons


def assign(costs: np.ndarray, known: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """The person of each query of a clip, (S, B, own), least in the sum of costs.

    Args:
        costs: (S, B, own, N)
        known: (B, n); their persons are taken.
        counts: Persons of each clip.
    """
    found = np.zeros(costs.shape[:3], int)
    firsts = np.cumsum([0, *counts])
    for clip, count in enumerate(counts):
        left = np.setdiff1d(np.arange(count), known[clip] - 1)
        for stage, of_stage in enumerate(costs[:, clip]):
            rows, columns = linear_sum_assignment(of_stage[:, firsts[clip] + left])
            found[stage, clip, rows] = left[columns] + 1
    return found


def match_clips(
    stages: StageOutput,
    known: np.ndarray,
    data_samples: Samples,
    assigner: object,
    own: int,
) -> Tensor:
    """The same by any assigner, for one stage and clip after the other."""
    found = [
        match_clip(logits[:own], bboxes[:own], *of_clip, assigner=assigner)
        for stage in zip(stages.person_logits, stages.bboxes, strict=True)
        for logits, bboxes, *of_clip in zip(*stage, known, data_samples, strict=True)
    ]
    return torch.stack(found).view(*stages.bboxes.shape[:2], own)


def match_clip(
    person_logits: Tensor,
    bboxes: Tensor,
    known: np.ndarray,
    sample: ActionDataSample,
    *,
    assigner: object,
) -> Tensor:
    """The person of each query of a clip, (Q,), among those that are left.

    Args:
        person_logits: (Q, [K], 2)
        bboxes: Pixel xyxy, (Q, [K], 4).
        known: Persons, from 1, that are taken.
        sample: Its ``gt_instances`` have ``bboxes`` (k, [K], 4), pixel xyxy, and, of
            tubelets, ``states`` (k, K).
        assigner: One of mmdet's.
    """
    gt_instances = sample.gt_instances
    gt_bboxes = gt_instances.bboxes.to(bboxes)
    left = np.setdiff1d(np.arange(len(gt_bboxes)), known - 1)
    left = torch.from_numpy(left).to(bboxes.device)
    states = gt_instances.get('states')
    persons = as_persons(
        gt_bboxes[left], None if states is None else states.to(bboxes.device)[left]
    )
    queries = as_queries(person_logits, bboxes)
    found = assigner.assign(queries, persons, img_meta=sample.metainfo).gt_inds
    numbers = F.pad(left + 1, (1, 0))  # none stays none
    return torch.where(found > 0, numbers[found.clamp(min=0)], found)


@TASK_UTILS.register_module()
class TubeletCost:
    """Costs of boxes in frames as costs of tubelets, by their means over the frames.

    Args:
        person_costs: mmdet's costs of person scores, over the frames where it is known
            whether the person is there; where it is absent, costs of background.
        box_costs: mmdet's costs of boxes, over the frames where the person has one.
    """

    def __init__(
        self, *, person_costs: Sequence[dict], box_costs: Sequence[dict]
    ) -> None:
        self.person_costs, self.box_costs = (
            [TASK_UTILS.build(cost) for cost in costs]
            for costs in (person_costs, box_costs)
        )

    def __call__(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        img_meta: dict | None = None,
        **kwargs,
    ) -> Tensor:
        """Costs (Q, k).

        Args:
            pred_instances: ``scores`` (Q, K, 2), ``bboxes`` and ``priors`` (Q, K, 4).
            gt_instances: ``bboxes`` (k, K, 4) and ``states`` (k, K).
            img_meta: For the costs.
        """
        states = gt_instances.states
        total = 0
        for costs, counts in (
            (self.person_costs, states != UNKNOWN),
            (self.box_costs, states == PRESENT),
        ):
            for cost in costs:
                of_frames = cost_frames(cost, pred_instances, gt_instances, img_meta)
                summed = of_frames.where(counts, 0).sum(dim=-1)
                total = total + summed / counts.sum(dim=-1).clamp(min=1)
        return total


def cost_frames(
    cost: Callable, queries: InstanceData, persons: InstanceData, img_meta: dict | None
) -> Tensor:
    """A cost in each frame, (Q, k, K); in one call, if it is known how it computes."""
    labels = torch.where(persons.states == PRESENT, PERSON, BACKGROUND)
    if type(cost) in (ClassificationCost, FocalLossCost):
        flat = InstanceData(scores=queries.scores.flatten(0, 1))
        both = InstanceData(labels=torch.arange(2, device=labels.device))
        of_labels = cost(flat, both).view(len(queries), 1, -1, 2)
        return of_labels[..., PERSON].where(
            labels == PERSON, of_labels[..., BACKGROUND]
        )
    if type(cost) in (BBoxL1Cost, IoUCost):
        pair = (
            InstanceData(bboxes=v.bboxes.transpose(0, 1)) for v in (queries, persons)
        )
        return cost(*pair, img_meta=img_meta).permute(1, 2, 0)
    pairs = (
        (
            InstanceData(**{k: v[:, frame] for k, v in queries.items()}),
            InstanceData(labels=label, bboxes=persons.bboxes[:, frame]),
        )
        for frame, label in enumerate(labels.unbind(1))
    )
    return torch.stack([cost(*pair, img_meta=img_meta) for pair in pairs], dim=-1)
