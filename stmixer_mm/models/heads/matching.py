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
from stmixer_mm.models.heads.targets import BACKGROUND, PERSON, ClipTruth
from stmixer_mm.structures import PRESENT, StageOutput

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
    stages: Stages, data_samples: Samples, num_queries: int, assigner: object
) -> tuple[np.ndarray, list[ClipTruth]]:
    """Match the queries of all stages and clips; the host waits for the device once.

    Args:
        stages: Predictions of S stages, float32.
        data_samples: The B clips.
        num_queries: Q, of the first queries; the others are left out.
        assigner: One of mmdet's.

    Returns:
        The persons of the queries, (S, B, Q), see :meth:`.SetCriterion.loss`, and the
        truth of each clip.
    """
    clips = [sample.gt_instances for sample in data_samples]
    metas = [sample.metainfo for sample in data_samples]
    counts = [len(clip.bboxes) for clip in clips]
    ends = np.cumsum(counts)
    truth = {
        name: torch.cat([clip[name] for clip in clips]).to(stages[0].bboxes.device)
        for name in ('bboxes', 'labels', 'states')
        if name in clips[0]
    }
    logits = torch.stack([stage.person_logits[:, :num_queries] for stage in stages])
    bboxes = torch.stack([stage.bboxes[:, :num_queries] for stage in stages])
    persons = InstanceData(**truth)  # as mmdet's assigners and costs take them
    persons.bboxes = persons.bboxes.float()
    persons.labels = logits.new_full((len(persons),), PERSON, dtype=torch.long)
    if type(assigner) is HungarianAssigner:
        costs = compare(logits, bboxes, persons, counts, metas, assigner)
        costs, *fields = to_host(costs, *truth.values())
        # Predictions that are not finite are refused with their losses.
        matches = assign(np.split(np.nan_to_num(costs), ends[:-1], axis=-1))
    else:
        matches = [
            assigner.assign(
                read_queries(logits[stage, clip], bboxes[stage, clip]),
                persons[ends[clip] - counts[clip] : ends[clip]],
                img_meta=metas[clip],
            ).gt_inds
            for stage, clip in np.ndindex(bboxes.shape[:2])
        ]
        matches, *fields = to_host(torch.stack(matches), *truth.values())
        matches = matches.reshape(bboxes.shape[:3])
    fields = [np.split(field, ends[:-1]) for field in fields]
    if 'states' not in truth:
        fields.append([np.full(count, PRESENT) for count in counts])
    img_shapes = [meta['img_shape'] for meta in metas]
    return matches.astype(int), [*map(ClipTruth.of, *fields, img_shapes)]


def read_queries(person_logits: Tensor, bboxes: Tensor) -> InstanceData:
    """Queries (n, [K], ·) as mmdet's assigners and costs take them."""
    # Logits (log-odds, 0) and (person, background) have the same softmax to the bit,
    # and the sigmoid of the log-odds is right as well: costs of both types fit.
    log_odds = person_log_odds(person_logits)
    scores = torch.stack((log_odds, torch.zeros_like(log_odds)), dim=-1)
    return InstanceData(scores=scores, bboxes=bboxes, priors=bboxes)


def compare(
    logits: Tensor,
    bboxes: Tensor,
    persons: InstanceData,
    counts: Sequence[int],
    metas: Sequence[dict],
    assigner: HungarianAssigner,
) -> Tensor:
    """Costs of the queries (S, B, Q, ·) for the persons of all clips, (S, B, Q, N).

    Each frame is stretched to a square of one size, so that one call compares all
    clips: mmdet's costs stay the same, and the eps of the IoUs negligible.
    """
    shape = *bboxes.shape[:3], len(persons)
    if 0 in shape:
        return bboxes.new_zeros(shape)
    clips = [*metas, *np.repeat(metas, counts)]
    units = frame_scales([clip['img_shape'] for clip in clips], persons.bboxes) / SIDE
    units, person_units = units.split((len(metas), len(persons)))
    persons.bboxes = persons.bboxes / person_units
    bboxes = bboxes / units.unsqueeze(1)
    queries = read_queries(logits.flatten(0, 2), bboxes.flatten(0, 2))
    meta = dict(img_shape=(SIDE, SIDE))
    costs = sum(cost(queries, persons, img_meta=meta) for cost in assigner.match_costs)
    return costs.view(shape)


def assign(costs: Sequence[np.ndarray]) -> np.ndarray:
    """Persons, from 1, with the least sum of each clip's costs (S, B, Q, k); 0: none."""
    persons = np.zeros(costs[0].shape[:3], int)
    for stage, clip in np.ndindex(persons.shape[:2]):
        rows, columns = linear_sum_assignment(costs[clip][stage, clip])
        persons[stage, clip, rows] = columns + 1
    return persons


def to_host(*values: Tensor) -> list[np.ndarray]:
    """Several tensors in one copy, as float32."""
    flat = torch.cat([value.flatten().float() for value in values])
    ends = np.cumsum([value.numel() for value in values])
    parts = np.split(flat.detach().cpu().numpy(), ends[:-1])
    return [part.reshape(v.shape) for part, v in zip(parts, values, strict=True)]
