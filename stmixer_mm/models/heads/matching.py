"""Persons among the queries: their scores and their matching.

Shapes: Q queries of a clip, its k persons and, for tubelets, its K frames.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from torch import Tensor

from stmixer_mm.registry import TASK_UTILS, build_hosted
from stmixer_mm.structures import PRESENT, UNKNOWN

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
    gt_instances: InstanceData,
    img_meta: dict,
    *,
    assigner: object,
    sampler: object | None = None,
) -> Tensor:
    """Which person each query of a clip stands for.

    Args:
        person_logits: (Q, 2), of tubelets (Q, K, 2).
        bboxes: Pixel xyxy, (Q, 4), of tubelets (Q, K, 4).
        gt_instances: ``bboxes`` (k, 4), pixel xyxy; of tubelets (k, K, 4), and
            ``states`` (k, K).
        img_meta: ``img_shape`` (h, w) without padding.
        assigner: One of mmdet's.
        sampler: One of mmdet's; None lets every query count.

    Returns:
        (Q,) long: i + 1 for the i-th person, 0 for none, -1 for a query that
        counts nowhere.
    """
    # Logits (margin, 0) and (person, background) have the same softmax to the bit,
    # and the sigmoid of the margin is right as well: costs of both types fit.
    margin = person_margin(person_logits)
    queries = InstanceData(
        scores=torch.stack((margin, torch.zeros_like(margin)), dim=-1),
        bboxes=bboxes,
        priors=bboxes,
    )
    gt_bboxes = gt_instances.bboxes.to(bboxes)
    present = gt_bboxes.new_ones(len(gt_bboxes), dtype=torch.bool)
    persons = describe_persons(gt_bboxes, present)
    if 'states' in gt_instances:
        persons.states = gt_instances.states.to(bboxes.device)
    result = assigner.assign(queries, persons, img_meta=img_meta)
    if sampler is None:
        return result.gt_inds
    sampled = sampler.sample(result, queries, persons)
    taken = torch.cat((sampled.pos_inds, sampled.neg_inds))
    assigned = torch.full_like(result.gt_inds, -1)
    assigned[taken] = result.gt_inds[taken]
    return assigned


def match_rest(
    person_logits: Tensor,
    bboxes: Tensor,
    gt_instances: InstanceData,
    img_meta: dict,
    *,
    held: Tensor,
    **parts: object,
) -> Tensor:
    """:func:`match_clip` where the last N queries have their persons already.

    The others are matched to the persons that are left.

    Args:
        held: What is returned for the last N, (N,).
        parts: Assigner and sampler.
    """
    own = len(bboxes) - len(held)
    persons = torch.arange(len(gt_instances.bboxes), device=held.device)
    rest = persons[~torch.isin(persons + 1, held)]
    found = match_clip(
        person_logits[:own], bboxes[:own], gt_instances[rest], img_meta, **parts
    )
    numbers = F.pad(rest + 1, (1, 0))  # none stays none
    found = torch.where(found > 0, numbers[found.clamp(min=0)], found)
    return torch.cat((found, held))


def describe_persons(gt_bboxes: Tensor, present: Tensor) -> InstanceData:
    """What mmdet's costs read from the truth.

    Args:
        gt_bboxes: (k, 4)
        present: Who is a person, and not background, (k,) bool.
    """
    return InstanceData(
        labels=torch.where(present, PERSON, BACKGROUND),
        bboxes=gt_bboxes,
        # What mmdet.BinaryFocalLossCost reads: each person is the one token.
        positive_maps=present[:, None].to(gt_bboxes),
        text_token_mask=torch.ones_like(present)[:, None],
    )


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
            [build_hosted(cost, TASK_UTILS) for cost in costs]
            for costs in (person_costs, box_costs)
        )

    def __call__(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        img_meta: dict | None = None,
        **kwargs,
    ) -> Tensor:
        """
        Args:
            pred_instances: ``scores`` (Q, K, 2), ``bboxes`` and ``priors`` (Q, K, 4).
            gt_instances: ``bboxes`` (k, K, 4) and ``states`` (k, K).
            img_meta: For the costs.

        Returns:
            (Q, k)
        """
        states = gt_instances.states
        queries = InstanceData(
            **{name: values.flatten(0, 1) for name, values in pred_instances.items()}
        )
        persons = describe_persons(
            gt_instances.bboxes.flatten(0, 1), states.flatten() == PRESENT
        )
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
