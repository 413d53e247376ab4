"""Matching of queries with persons, and the scores of persons.

Shapes: S stages, B clips, Q queries, N persons of all clips, k of one; [K]: of tubelets
there is a value for each of the K frames.
"""

from collections.abc import Sequence

import numpy as np
import torch
from mmaction.structures import ActionDataSample
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from stmixer_mm.models.boxes import frame_scales
from stmixer_mm.models.finite import check_stages
from stmixer_mm.models.heads.targets import BACKGROUND, PERSON, Truth
from stmixer_mm.structures import StageOutput

Samples = Sequence[ActionDataSample]
Stages = Sequence[StageOutput]
SIDE = 1024  # pixels of the frames in which boxes are compared


def person_log_odds(person_logits: Tensor) -> Tensor:
    """Log-odds of a person, (..., 2) to (...); their sigmoid is the person score."""
    return person_logits[..., PERSON] - person_logits[..., BACKGROUND]


def score_persons(person_logits: Tensor) -> Tensor:
    """Probability of a person, (..., 2) to (...)."""
    return person_logits.softmax(dim=-1)[..., PERSON]


def match_persons(
    stages: Stages,
    data_samples: Samples,
    num_queries: int,
    assigner: object,
) -> tuple[np.ndarray, Truth]:
    """Match the queries of all stages and clips; the host waits for the device once.

    Args:
        stages: Predictions of S stages, float32.
        data_samples: The B clips.
        num_queries: Q, of the first queries; the others are left out.
        assigner: One of mmdet's.

    Returns:
        The persons of the queries, (S, B, Q), see :meth:`.SetCriterion.loss`, and the
        truth, on the host.
    """
    clips = [sample.gt_instances for sample in data_samples]
    counts = [len(clip.bboxes) for clip in clips]
    truth = {
        name: torch.cat([clip[name] for clip in clips]).to(stages[0].bboxes.device)
        for name in ('bboxes', 'labels', 'states')
        if name in clips[0]
    }
    queries = [
        type(stage)(*(values[:, :num_queries] for values in stage)) for stage in stages
    ]
    is_hungarian = type(assigner) is HungarianAssigner
    if is_hungarian:
        img_shapes = [sample.metainfo['img_shape'] for sample in data_samples]
        matches = compare(queries, truth, counts, img_shapes, assigner)
    else:
        matches = match_clips(queries, truth, counts, data_samples, assigner)
    matches, *fields = to_host(matches, *truth.values())
    if is_hungarian and not np.isfinite(matches).all():
        check_stages(stages, data_samples)
    truth = Truth.of(dict(zip(truth, fields, strict=True)), data_samples)
    if is_hungarian:
        costs = np.split(matches, np.cumsum(counts)[:-1], axis=-1)
        assigned = [assign(clip[:, i]) for i, clip in enumerate(costs)]
        matches = np.stack(assigned, axis=1)
    return matches.astype(int), truth


def read_queries(person_logits: Tensor, bboxes: Tensor) -> InstanceData:
    """Queries (n, [K], ·) as mmdet's assigners and costs take them."""
    # Logits (log-odds, 0) and (person, background) have the same softmax to the bit,
    # and the sigmoid of the log-odds is right as well: costs of both types fit.
    log_odds = person_log_odds(person_logits)
    scores = torch.stack((log_odds, torch.zeros_like(log_odds)), dim=-1)
    return InstanceData(scores=scores, bboxes=bboxes, priors=bboxes)


def read_persons(truth: dict[str, Tensor]) -> InstanceData:
    """Persons as mmdet's assigners and costs take them."""
    bboxes = truth['bboxes'].float()
    labels = bboxes.new_full((len(bboxes),), PERSON, dtype=torch.long)
    states = {'states': truth['states']} if 'states' in truth else {}
    return InstanceData(labels=labels, bboxes=bboxes, **states)


def compare(
    stages: Stages,
    truth: dict[str, Tensor],
    counts: Sequence[int],
    img_shapes: Sequence[tuple[int, int]],
    assigner: HungarianAssigner,
) -> Tensor:
    """Costs of Q queries for the persons of all clips, (S, B, Q, N).

    Each frame is stretched to a square of one size, so that one call compares all
    clips: mmdet's costs stay the same, and the eps of the IoUs negligible.
    """
    logits = torch.stack([stage.person_logits for stage in stages])
    bboxes = torch.stack([stage.bboxes for stage in stages])
    shape = *bboxes.shape[:3], sum(counts)
    if 0 in shape:
        return bboxes.new_zeros(shape)
    persons = read_persons(truth)
    shapes = [*img_shapes, *np.repeat(img_shapes, counts, axis=0).tolist()]
    scales = frame_scales(shapes, bboxes) / SIDE
    scales = scales.view(-1, *[1] * (persons.bboxes.dim() - 2), 4)  # of each frame
    units, person_units = scales.split((len(counts), len(persons)))
    persons.bboxes = persons.bboxes / person_units
    queries = read_queries(
        logits.flatten(0, 2), (bboxes / units.unsqueeze(1)).flatten(0, 2)
    )
    meta = dict(img_shape=(SIDE, SIDE))
    costs = sum(cost(queries, persons, img_meta=meta) for cost in assigner.match_costs)
    return costs.view(shape)


def match_clips(
    stages: Stages,
    truth: dict[str, Tensor],
    counts: Sequence[int],
    data_samples: Samples,
    assigner: object,
) -> Tensor:
    """Persons by any assigner, clip by clip, (S, B, Q)."""
    persons, ends = read_persons(truth), np.cumsum(counts)
    matches = [
        assigner.assign(
            read_queries(stage.person_logits[clip], stage.bboxes[clip]),
            persons[ends[clip] - count : ends[clip]],
            img_meta=data_samples[clip].metainfo,
        ).gt_inds
        for stage in stages
        for clip, count in enumerate(counts)
    ]
    return torch.stack(matches).view(len(stages), len(counts), -1)


def assign(costs: np.ndarray) -> np.ndarray:
    """Persons, from 1, with the least sum of costs (S, Q, k); 0: none."""
    persons = np.zeros(costs.shape[:2], int)
    for stage, stage_costs in enumerate(costs):
        rows, columns = linear_sum_assignment(stage_costs)
        persons[stage, rows] = columns + 1
    return persons


def to_host(*values: Tensor) -> list[np.ndarray]:
    """Several tensors in one copy, as float32."""
    flat = torch.cat([value.flatten().float() for value in values])
    ends = np.cumsum([value.numel() for value in values])
    parts = np.split(flat.detach().cpu().numpy(), ends[:-1])
    return [part.reshape(v.shape) for part, v in zip(parts, values, strict=True)]
