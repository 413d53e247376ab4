"""Persons among the queries: their scores, and their matching with the truth.

Shapes: S stages, B clips, Q queries, k persons of a clip; [K]: of tubelets there is a
value for each of the K frames.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
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
from stmixer_mm.models.finite import check_stages
from stmixer_mm.models.heads.targets import BACKGROUND, PERSON, Truth
from stmixer_mm.registry import TASK_UTILS
from stmixer_mm.structures import PRESENT, UNKNOWN, StageOutput

Samples = Sequence[ActionDataSample]
Stages = Sequence[StageOutput]
SIDE = 1024  # pixels of the frames in which :func:`compare` does so


def person_log_odds(person_logits: Tensor) -> Tensor:
    """Log-odds of a person, (..., 2) to (...); their sigmoid is the person score."""
    return person_logits[..., PERSON] - person_logits[..., BACKGROUND]


def score_persons(person_logits: Tensor) -> Tensor:
    """Probability of a person, (..., 2) to (...)."""
    return person_logits.softmax(dim=-1)[..., PERSON]


def match_persons(
    stages: Stages,
    data_samples: Samples,
    known_persons: np.ndarray,
    first: int,
    assigner: object,
) -> tuple[np.ndarray, Truth]:
    """Match the queries of all stages and clips; the host waits for the device once.

    Args:
        stages: Predictions of S stages, float32.
        data_samples: The B clips.
        known_persons: (B, n), see :meth:`.SetCriterion.loss_and_match`.
        first: Queries of the first group; the others are all known.
        assigner: One of mmdet's.

    Returns:
        The persons of the queries, (S, B, Q), and the truth, on the host.
    """
    num_clips, num_queries = stages[0].bboxes.shape[:2]
    num_matched = num_queries - known_persons.shape[1]
    assigned = np.zeros((len(stages), num_clips, num_queries), int)
    assigned[..., num_matched:] = known_persons
    clips = [sample.gt_instances for sample in data_samples]
    fields = {
        name: torch.cat([clip[name] for clip in clips]).to(stages[0].bboxes.device)
        for name in ('bboxes', 'labels', 'states')
        if name in clips[0]
    }
    firsts = np.cumsum([0, *(len(clip.bboxes) for clip in clips)])
    free_persons = [
        np.setdiff1d(np.arange(len(clip.bboxes)), of_clip[: first - num_matched] - 1)
        for clip, of_clip in zip(clips, known_persons, strict=True)
    ]
    persons = read_persons(fields)
    is_hungarian = type(assigner) is HungarianAssigner
    if not num_matched or (is_hungarian and not len(persons)):
        shape = len(stages), num_clips, num_matched, len(persons)
        matches = persons.bboxes.new_zeros(shape)
    elif is_hungarian:
        costs = assigner.match_costs
        matches = compare(stages, num_matched, persons, data_samples, costs)
    else:
        rows = list(map(np.add, firsts, free_persons))
        matches = match_clips(
            stages, num_matched, persons, rows, data_samples, assigner
        )
    matches, *fields = to_host(matches, *fields.values())
    if is_hungarian and not np.isfinite(matches).all():
        check_stages(stages, data_samples)
    for clip in range(num_clips if num_matched else 0):
        if is_hungarian:
            costs = matches[:, clip][..., firsts[clip] + free_persons[clip]]
            matched_idx = assign(costs)
        else:
            matched_idx = matches[:, clip].astype(int)
        # Entries for -1 and 0 are last.
        numbers = np.append(free_persons[clip] + 1, (-1, 0))
        assigned[:, clip, :num_matched] = numbers[matched_idx - 1]
    if len(fields) == 2:
        fields.append(np.full(len(persons), PRESENT))
    fields = [np.split(values, firsts[1:-1]) for values in fields]
    img_shapes = [sample.metainfo['img_shape'] for sample in data_samples]
    return assigned, Truth.of([*zip(*fields, strict=True)], img_shapes)


def read_persons(fields: dict[str, Tensor]) -> InstanceData:
    """Persons as mmdet's assigners and costs take them."""
    bboxes = fields['bboxes'].float()
    labels = bboxes.new_full((len(bboxes),), PERSON, dtype=torch.long)
    states = {'states': fields['states']} if 'states' in fields else {}
    return InstanceData(labels=labels, bboxes=bboxes, **states)


def read_queries(person_logits: Tensor, bboxes: Tensor) -> InstanceData:
    """Queries (n, [K], ·) as mmdet's assigners and costs take them."""
    # Logits (log-odds, 0) and (person, background) have the same softmax to the bit,
    # and the sigmoid of the log-odds is right as well: costs of both types fit.
    log_odds = person_log_odds(person_logits)
    scores = torch.stack((log_odds, torch.zeros_like(log_odds)), dim=-1)
    return InstanceData(scores=scores, bboxes=bboxes, priors=bboxes)


def compare(
    stages: Stages,
    num_queries: int,
    persons: InstanceData,
    data_samples: Samples,
    match_costs: Sequence[Callable],
) -> Tensor:
    """Costs of the first Q queries for the N persons of all clips, (S, B, Q, N).

    Each frame is stretched to a square of one size, so that one call compares all
    clips: mmdet's costs stay the same, and the eps of the IoUs negligible.
    """
    person_logits = torch.stack(
        [stage.person_logits[:, :num_queries] for stage in stages]
    )
    bboxes = torch.stack([stage.bboxes[:, :num_queries] for stage in stages])
    shapes = [sample.metainfo['img_shape'] for sample in data_samples]
    counts = [len(sample.gt_instances.bboxes) for sample in data_samples]
    scales = frame_scales(shapes + np.repeat(shapes, counts, axis=0).tolist(), bboxes)
    units, person_units = (scales / SIDE).split((len(shapes), len(persons)))
    frame_dims = [1] * (persons.bboxes.dim() - 2)  # of the frames of tubelets
    queries = read_queries(
        person_logits.flatten(0, 2),
        (bboxes / units.view(-1, 1, *frame_dims, 4)).flatten(0, 2),
    )
    persons = persons.clone()
    persons.bboxes = persons.bboxes / person_units.view(-1, *frame_dims, 4)
    meta = dict(img_shape=(SIDE, SIDE))
    costs = sum(cost(queries, persons, img_meta=meta) for cost in match_costs)
    return costs.view(*bboxes.shape[:3], -1)


def match_clips(
    stages: Stages,
    num_queries: int,
    persons: InstanceData,
    rows: Sequence[np.ndarray],
    data_samples: Samples,
    assigner: object,
) -> Tensor:
    """Numbers of persons, (S, B, Q), by any assigner, clip by clip; 0 for none.

    Args:
        rows: Of each clip, its ``persons`` that are left.
    """
    device = persons.bboxes.device
    free_persons = [persons[torch.from_numpy(index).to(device)] for index in rows]
    numbers = []
    for stage in stages:
        logits = stage.person_logits[:, :num_queries]
        bboxes = stage.bboxes[:, :num_queries]
        for clip, sample in enumerate(data_samples):
            queries = read_queries(logits[clip], bboxes[clip])
            meta = sample.metainfo
            assigned = assigner.assign(queries, free_persons[clip], img_meta=meta)
            numbers.append(assigned.gt_inds)
    return torch.stack(numbers).view(len(stages), len(data_samples), num_queries)


def assign(costs: np.ndarray) -> np.ndarray:
    """Numbers of the persons with the least sum of costs (S, Q, k), as above."""
    numbers = np.zeros(costs.shape[:2], int)
    for stage, stage_costs in enumerate(costs):
        rows, columns = linear_sum_assignment(stage_costs)
        numbers[stage, rows] = columns + 1
    return numbers


def to_host(*values: Tensor) -> list[np.ndarray]:
    """Several tensors in one copy, as float32."""
    flat = torch.cat([value.flatten().float() for value in values])
    ends = np.cumsum([value.numel() for value in values])
    parts = np.split(flat.detach().cpu().numpy(), ends[:-1])
    return [part.reshape(v.shape) for part, v in zip(parts, values, strict=True)]


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
        self.person_costs = [TASK_UTILS.build(cost) for cost in person_costs]
        self.box_costs = [TASK_UTILS.build(cost) for cost in box_costs]

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
                frame_costs = cost_frames(cost, pred_instances, gt_instances, img_meta)
                total_cost = frame_costs.where(counts, 0).sum(dim=-1)
                total = total + total_cost / counts.sum(dim=-1).clamp(min=1)
        return total


def cost_frames(
    cost: Callable, queries: InstanceData, persons: InstanceData, img_meta: dict | None
) -> Tensor:
    """A cost in each frame, (Q, k, K); in one call, if it is known how it computes."""
    labels = torch.where(persons.states == PRESENT, PERSON, BACKGROUND)
    if type(cost) in (ClassificationCost, FocalLossCost):
        flat = InstanceData(scores=queries.scores.flatten(0, 1))
        classes = InstanceData(labels=torch.arange(2, device=labels.device))
        label_costs = cost(flat, classes).view(len(queries), 1, -1, 2)
        return label_costs[..., PERSON].where(
            labels == PERSON, label_costs[..., BACKGROUND]
        )
    if type(cost) in (BBoxL1Cost, IoUCost):
        pair = (
            InstanceData(bboxes=v.bboxes.transpose(0, 1)) for v in (queries, persons)
        )
        return cost(*pair, img_meta=img_meta).permute(1, 2, 0)
    frame_costs = []
    for frame in range(labels.size(1)):
        fields = {name: values[:, frame] for name, values in queries.items()}
        frame_persons = InstanceData(
            labels=labels[:, frame], bboxes=persons.bboxes[:, frame]
        )
        frame_costs.append(
            cost(InstanceData(**fields), frame_persons, img_meta=img_meta)
        )
    return torch.stack(frame_costs, dim=-1)
