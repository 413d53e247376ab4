"""Persons among the queries: their scores, their matching and the truth for them.

Shapes: B clips, Q queries, A actions, k persons of a clip; [K]: of tubelets there is a
value for each of the K frames.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from stmixer_mm.models.boxes import frame_scale
from stmixer_mm.registry import TASK_UTILS
from stmixer_mm.structures import ABSENT, PRESENT, UNKNOWN

PERSON, BACKGROUND = 0, 1  # columns of the person logits


def person_margin(person_logits: Tensor) -> Tensor:
    """Log-odds of a person, (..., 2) to (...); their sigmoid is the person score."""
    return person_logits[..., PERSON] - person_logits[..., BACKGROUND]


def score_persons(person_logits: Tensor) -> Tensor:
    """Probability of a person, (..., 2) to (...)."""
    return person_logits.softmax(dim=-1)[..., PERSON]


def match_clip(
    person_logits: Tensor,
    bboxes: Tensor,
    known: Tensor,
    sample: ActionDataSample,
    *,
    assigner: object,
) -> Tensor:
    """The person of each query of a clip, see :meth:`.SetCriterion.loss_and_match`.

    Args:
        person_logits: (Q, [K], 2)
        bboxes: Pixel xyxy, (Q, [K], 4).
        known: The result for the last N queries, (N,). The others are matched to the
            persons that are left.
        sample: Its ``gt_instances`` have ``bboxes`` (k, [K], 4), pixel xyxy, and, of
            tubelets, ``states`` (k, K).
        assigner: One of mmdet's.
    """
    own, gt_instances = len(bboxes) - len(known), sample.gt_instances
    gt_bboxes = gt_instances.bboxes.to(bboxes)
    numbers = torch.arange(1, len(gt_bboxes) + 1, device=known.device)
    left = ~torch.isin(numbers, known)
    # Logits (margin, 0) and (person, background) have the same softmax to the bit,
    # and the sigmoid of the margin is right as well: costs of both types fit.
    margin = person_margin(person_logits[:own])
    queries = InstanceData(
        scores=torch.stack((margin, torch.zeros_like(margin)), dim=-1),
        bboxes=bboxes[:own],
        priors=bboxes[:own],
    )
    persons = InstanceData(
        labels=torch.full_like(numbers[left], PERSON), bboxes=gt_bboxes[left]
    )
    if 'states' in gt_instances:
        persons.states = gt_instances.states.to(bboxes.device)[left]
    found = assigner.assign(queries, persons, img_meta=sample.metainfo).gt_inds
    if len(known) == 0:
        return found
    numbers = F.pad(numbers[left], (1, 0))  # none stays none
    found = torch.where(found > 0, numbers[found.clamp(min=0)], found)
    return torch.cat((found, known))


class Targets(NamedTuple):
    """Truth for the queries of a batch, from one stage's matching."""

    person_labels: Tensor  # (B, Q, [K]): PERSON or BACKGROUND
    counted: Tensor  # (B, Q, [K]) bool: where the person label counts
    boxed: Tensor  # (B, Q, [K]) bool: where the matched persons have their m boxes
    bboxes: Tensor  # (m, 4): pixel xyxy, in the order of ``boxed``
    acting: Tensor  # bool: the matched queries (B, Q), or ``boxed``
    actions: Tensor  # (n, A): multi-hot, in the order of ``acting``
    box_scale: Tensor  # (m, 4): w, h, w, h of the frame without padding


def make_targets(persons: Tensor, data_samples: Sequence[ActionDataSample]) -> Targets:
    """Truth for queries, given their persons (B, Q), see :func:`match_clip`.

    Persons with ``states`` (k, K) are tubelets, and may have ``labels`` (k, K, A + 1).
    """
    states, bboxes, actions, scales = [], [], [], []
    for sample, of_clip in zip(data_samples, persons, strict=True):
        gt_instances = sample.gt_instances
        pairs = of_clip[of_clip > 0] - 1
        states.append(query_states(of_clip, gt_instances))
        there = states[-1][of_clip > 0] == PRESENT
        gt_bboxes = gt_instances.bboxes.to(pairs.device, torch.float32)[pairs]
        bboxes.append(gt_bboxes[there])
        labels = gt_instances.labels.to(pairs.device)[pairs]
        by_frame = labels.dim() == 3
        actions.append((labels[there] if by_frame else labels)[:, 1:].float())
        scale = frame_scale(sample.metainfo['img_shape'], bboxes[-1])
        scales.append(scale.expand(len(bboxes[-1]), 4))
    states = torch.stack(states)
    boxed = states == PRESENT
    return Targets(
        person_labels=torch.where(boxed, PERSON, BACKGROUND),
        counted=states != UNKNOWN,
        boxed=boxed,
        bboxes=torch.cat(bboxes),
        acting=boxed if by_frame else persons > 0,
        actions=torch.cat(actions),
        box_scale=torch.cat(scales),
    )


def query_states(persons: Tensor, gt_instances: InstanceData) -> Tensor:
    """States ``(Q, [K])`` of the persons of a clip's queries, see :func:`match_clip`.

    Without a person a query is absent, but unknown in frames where no state is known.
    """
    states = persons.new_full((len(gt_instances.bboxes),), PRESENT)
    if 'states' in gt_instances:
        states = gt_instances.states.to(persons)
    of_none = states.new_full(states.shape[1:], ABSENT)
    if len(states):
        of_none[(states == UNKNOWN).all(dim=0)] = UNKNOWN
    table = torch.cat((of_none[None], states))
    found = table[persons.clamp(min=0)]
    found[persons < 0] = UNKNOWN
    return found


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
        queries = InstanceData(
            **{name: values.flatten(0, 1) for name, values in pred_instances.items()}
        )
        labels = torch.where(states.flatten() == PRESENT, PERSON, BACKGROUND)
        persons = InstanceData(labels=labels, bboxes=gt_instances.bboxes.flatten(0, 1))
        total = 0
        for costs, counts in (
            (self.person_costs, states != UNKNOWN),
            (self.box_costs, states == PRESENT),
        ):
            for cost in costs:
                # Every frame with every frame; only pairs of the same frame are meant.
                of_frames = cost(queries, persons, img_meta=img_meta)
                of_frames = of_frames.unflatten(1, states.shape)
                of_frames = of_frames.unflatten(0, (-1, states.size(1)))
                of_frames = of_frames.diagonal(dim1=1, dim2=3)  # (Q, k, K)
                summed = of_frames.where(counts, 0).sum(dim=-1)
                total = total + summed / counts.sum(dim=-1).clamp(min=1)
        return total
