"""The head of tubelets: matching, losses and predictions in the frames of a clip.

Shapes: B clips, Q tubelets, T frames of the feature maps, K frames of a clip, A
actions.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from torch import Tensor

from stmixer_mm.models.heads.stmixer_head import STMixerHead
from stmixer_mm.models.heads.targets import BACKGROUND, PERSON
from stmixer_mm.registry import MODELS, TASK_UTILS
from stmixer_mm.structures import PRESENCE, PRESENT, UNKNOWN, TubeletStageOutput


@MODELS.register_module()
class STMixerTubeletHead(STMixerHead):
    """Match tubelets to persons through a clip.

    Predictions in the T frames of the feature maps are resampled to the clip's K
    frames (:func:`at_clip_frames`), and compared there with persons
    (``gt_instances``): ``bboxes`` (k, K, 4) in pixels, multi-hot ``labels`` (k, A + 1),
    and ``states`` (k, K), 1 where a person has a box, 0 where it is not there, -1 where
    that is unknown; each person has a box somewhere. Boxes are learnt where there is
    one, person scores in all frames but unknown ones, and actions once per tubelet, or,
    if the decoder has ``frame_actions``, from ``labels`` (k, K, A + 1) where there is a
    box. A tubelet without a person is background in each frame where any state is
    known.

    Predictions are as those of :class:`STMixerHead`, with ``bboxes`` (n, K, 4),
    ``person_scores`` (n, K), with ``frame_actions`` ``scores`` (n, K, num_classes), and
    ``tubelet_scores`` (n,), the mean person scores where the person is.

    Args:
        **kwargs: See :class:`STMixerHead`; the assigner's cost is a
            :class:`.TubeletCost`, ``score_thr`` is of ``tubelet_scores``, and losses of
            boxes are means over the boxes in all frames.
    """

    output_type = TubeletStageOutput
    query_scores = 'tubelet_scores'
    box_dims = 3

    def read(self, stage: TubeletStageOutput, clip_len: int) -> TubeletStageOutput:
        return at_clip_frames(super().read(stage, clip_len), clip_len)

    def score_queries(self, person_scores: Tensor) -> Tensor:
        """Mean person score where the person is, at least in the best frame."""
        best = person_scores.amax(dim=-1, keepdim=True)
        present = person_scores >= best.clamp(max=PRESENCE)
        return (person_scores * present).sum(dim=-1) / present.sum(dim=-1)


def at_clip_frames(output: TubeletStageOutput, clip_len: int) -> TubeletStageOutput:
    """Logits and boxes of T frames in each of the K = ``clip_len`` frames.

    Frame t of the feature maps stands for the time (t + 1/2) * K / T - 1/2 of the clip,
    the middle of its share. Linear in between, constant beyond the first and last.
    """

    def resample(values: Tensor) -> Tensor:  # ([S], B, Q, T, n)
        series = values.flatten(0, -3).transpose(1, 2)
        series = F.interpolate(series, clip_len, mode='linear', align_corners=False)
        return series.transpose(1, 2).unflatten(0, values.shape[:-2])

    action_logits = output.action_logits
    if action_logits.dim() == output.bboxes.dim():
        action_logits = resample(action_logits)
    return TubeletStageOutput(
        resample(output.person_logits), action_logits, resample(output.bboxes)
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
    """A cost in each frame, (Q, k, K)."""
    labels = torch.where(persons.states == PRESENT, PERSON, BACKGROUND)
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
