"""Persons among the queries: their scores and their matching.

Shapes: Q queries of a clip, k persons of it.
"""

import torch
from mmengine.structures import InstanceData
from torch import Tensor

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
        person_logits: (Q, 2)
        bboxes: Pixel xyxy, (Q, 4).
        gt_instances: ``bboxes`` (k, 4), pixel xyxy.
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
    ones = gt_bboxes.new_ones(len(gt_bboxes), 1)
    persons = InstanceData(
        labels=torch.full_like(ones[:, 0], PERSON, dtype=torch.long),
        bboxes=gt_bboxes,
        # What mmdet.BinaryFocalLossCost reads: each person is the one token.
        positive_maps=ones,
        text_token_mask=ones.bool(),
    )
    result = assigner.assign(queries, persons, img_meta=img_meta)
    if sampler is None:
        return result.gt_inds
    sampled = sampler.sample(result, queries, persons)
    taken = torch.cat((sampled.pos_inds, sampled.neg_inds))
    assigned = torch.full_like(result.gt_inds, -1)
    assigned[taken] = result.gt_inds[taken]
    return assigned
