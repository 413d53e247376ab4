"""The head: matching, targets, losses and predictions of set prediction.

Shapes: B clips, Q queries, A actions, k true boxes of a clip. It has no parameters.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmaction.structures import ActionDataSample
from mmdet.registry import TASK_UTILS
from mmengine.dist import all_reduce, get_world_size
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor

from ..registry import MODELS
from .decoder import StageOutput

PERSON, BACKGROUND = 0, 1


class Targets(NamedTuple):
    """What the queries of a batch should say, from one stage's matching."""

    person_labels: Tensor  # (B, Q): PERSON or BACKGROUND
    matched: Tensor  # (B, Q) bool: the queries of the n matched pairs
    bboxes: Tensor  # (n, 4): pixel xyxy, in the order of the matched queries
    actions: Tensor  # (n, A): multi-hot
    box_scale: Tensor  # (n, 4): w, h, w, h of the true frame


@MODELS.register_module()
class STMixerHead(BaseModule):
    """Match queries to true persons, and turn what they say into losses or scores.

    Args:
        assigner: One-to-one assigner, e.g. ``mmdet.HungarianAssigner``.
        loss_person: Loss of (Q, 2) logits; its ``class_weight`` weighs person and
            background.
        loss_bbox: Loss of boxes normalised by the true frame.
        loss_iou: Loss of pixel boxes.
        loss_action: Loss of (n, A) logits on multi-hot labels, a mean over all of
            them.
        num_classes: Number of action classes plus one, the host's dummy class 0.
        score_thr: Keep queries whose person score reaches it, in [0, 1].
        fallback_topk: Where no query reaches it, keep this many of the best.
        score_mode: 'action' for action scores as they are, 'product' for action
            scores times person score.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        *,
        assigner: dict,
        loss_person: dict,
        loss_bbox: dict,
        loss_iou: dict,
        loss_action: dict,
        num_classes: int = 81,
        score_thr: float = 0.6,
        fallback_topk: int = 0,
        score_mode: str = 'action',
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if not 0 <= score_thr <= 1:
            raise ValueError(
                f'score_thr={score_thr} is no probability; set it between 0 and 1.'
            )
        if fallback_topk < 0:
            raise ValueError(
                f'fallback_topk={fallback_topk} is negative; set 0 or more.'
            )
        if score_mode not in ('action', 'product'):
            raise ValueError(
                f"score_mode='{score_mode}' is unknown; use 'action' or 'product'."
            )
        self.num_classes = num_classes
        self.score_thr = score_thr
        self.fallback_topk = fallback_topk
        self.score_mode = score_mode
        self.assigner = TASK_UTILS.build(assigner)
        self.loss_person = MODELS.build(loss_person)
        self.loss_bbox = MODELS.build(loss_bbox)
        self.loss_iou = MODELS.build(loss_iou)
        self.loss_action = MODELS.build(loss_action)

    def loss(
        self, outputs: Sequence[StageOutput], data_samples: Sequence[ActionDataSample]
    ) -> dict[str, Tensor]:
        """Weighted loss terms of all stages; those before the last are named ``d0.…``.

        Raises:
            ValueError: Labels do not have ``num_classes`` columns.
            FloatingPointError: An output or a loss is not finite.
        """
        check_labels(data_samples, self.num_classes)
        losses = {}
        for stage, output in enumerate(outputs):
            prefix = f'd{stage}.' if stage < len(outputs) - 1 else ''
            output = StageOutput(*(values.float() for values in output))
            check_finite(output, data_samples, stage)
            for name, value in self.loss_by_stage(output, data_samples).items():
                losses[prefix + name] = value
        check_losses(losses, data_samples)
        return losses

    def loss_by_stage(
        self, output: StageOutput, data_samples: Sequence[ActionDataSample]
    ) -> dict[str, Tensor]:
        """The four terms of one stage."""
        targets = self.get_targets(output, data_samples)
        person_logits = output.person_logits.flatten(0, 1)
        person_labels = targets.person_labels.flatten()
        class_weight = getattr(self.loss_person, 'class_weight', None) or (1.0, 1.0)
        weight_sum = person_logits.new_tensor(class_weight)[person_labels].sum()

        num_pairs = len(targets.bboxes)
        avg_pairs, weight_sum = average_over_ranks(
            torch.stack((weight_sum.new_tensor(num_pairs), weight_sum))
        ).unbind()
        avg_pairs = avg_pairs.clamp(min=1 / get_world_size())
        losses = dict(
            loss_person=self.loss_person(
                person_logits, person_labels, avg_factor=weight_sum
            )
        )
        bboxes = output.bboxes[targets.matched]
        action_logits = output.action_logits[targets.matched]
        if num_pairs == 0:
            # The losses' own means over nothing are NaN, or lack a gradient path.
            losses['loss_bbox'] = losses['loss_iou'] = output.bboxes.sum() * 0
            losses['loss_action'] = output.action_logits.sum() * 0
            return losses
        losses['loss_bbox'] = self.loss_bbox(
            bboxes / targets.box_scale,
            targets.bboxes / targets.box_scale,
            avg_factor=avg_pairs,
        )
        losses['loss_iou'] = self.loss_iou(bboxes, targets.bboxes, avg_factor=avg_pairs)
        losses['loss_action'] = self.loss_action(action_logits, targets.actions) * (
            num_pairs / avg_pairs
        )
        return losses

    @torch.no_grad()
    def get_targets(
        self, output: StageOutput, data_samples: Sequence[ActionDataSample]
    ) -> Targets:
        """Match the queries of each clip to its true persons."""
        device = output.bboxes.device
        person_labels, bboxes, actions, scales = [], [], [], []
        for sample, person_logits, query_bboxes in zip(
            data_samples, output.person_logits, output.bboxes, strict=True
        ):
            truth = sample.gt_instances
            true_bboxes = truth.bboxes.to(query_bboxes)
            # 0: no person; i + 1: the i-th true person.
            assigned = self.assigner.assign(
                InstanceData(scores=person_logits, bboxes=query_bboxes),
                InstanceData(
                    labels=true_bboxes.new_full((len(true_bboxes),), PERSON).long(),
                    bboxes=true_bboxes,
                ),
                img_meta=sample.metainfo,
            ).gt_inds
            person_labels.append(torch.where(assigned > 0, PERSON, BACKGROUND))
            pairs = assigned[assigned > 0] - 1
            bboxes.append(true_bboxes[pairs])
            actions.append(truth.labels.to(device)[pairs, 1:].float())
            height, width = sample.metainfo['img_shape']
            scale = true_bboxes.new_tensor((width, height, width, height))
            scales.append(scale.expand(len(pairs), 4))
        person_labels = torch.stack(person_labels)
        return Targets(
            person_labels=person_labels,
            matched=person_labels == PERSON,
            bboxes=torch.cat(bboxes),
            actions=torch.cat(actions),
            box_scale=torch.cat(scales),
        )

    def predict(
        self, outputs: Sequence[StageOutput], data_samples: Sequence[ActionDataSample]
    ) -> Sequence[ActionDataSample]:
        """Fill ``pred_instances`` from the last stage.

        ``bboxes`` (n, 4) are xyxy normalised by the true frame, ``scores``
        (n, num_classes) have the host's dummy column 0, ``person_scores`` (n,).
        """
        last = StageOutput(*(values.float() for values in outputs[-1]))
        for sample, *clip_output in zip(data_samples, *last, strict=True):
            sample.pred_instances = self.predict_by_clip(
                StageOutput(*clip_output), sample.metainfo['img_shape']
            )
        return data_samples

    def predict_by_clip(
        self, output: StageOutput, img_shape: tuple[int, int]
    ) -> InstanceData:
        """Predictions of one clip from its rows of a :class:`StageOutput`."""
        person_scores = output.person_logits.softmax(dim=-1)[:, PERSON]
        keep = (person_scores >= self.score_thr).nonzero().squeeze(1)
        if len(keep) == 0:
            keep = person_scores.topk(
                min(self.fallback_topk, len(person_scores))
            ).indices
        action_scores = output.action_logits[keep].sigmoid()
        if self.score_mode == 'product':
            action_scores = action_scores * person_scores[keep, None]
        height, width = img_shape
        bboxes = output.bboxes[keep]
        size = bboxes.new_tensor((width, height, width, height))
        return InstanceData(
            bboxes=torch.minimum(bboxes.clamp(min=0), size - 1) / size,
            scores=torch.nn.functional.pad(action_scores, (1, 0)),
            person_scores=person_scores[keep],
        )


def average_over_ranks(totals: Tensor) -> Tensor:
    """Mean of the ranks' totals.

    Ranks that divide their sums by it give, averaged over the ranks, what one process
    gives for all samples together.
    """
    totals = totals.clone()
    all_reduce(totals, op='mean')
    return totals


def check_labels(data_samples: Sequence[ActionDataSample], num_classes: int) -> None:
    for sample in data_samples:
        columns = sample.gt_instances.labels.shape[-1]
        if columns != num_classes:
            raise ValueError(
                f'The labels of {sample_name(sample)} have {columns} columns but the '
                f"head has num_classes={num_classes}; set the dataset's and the model's "
                'num_classes to the number of actions plus one.'
            )


def check_finite(
    output: StageOutput, data_samples: Sequence[ActionDataSample], stage: int
) -> None:
    """Stop when a stage says something of a clip that is no number."""
    finite = torch.stack(
        [values.isfinite().flatten(1).all(dim=1) for values in output]
    ).all(dim=0)
    if not finite.all():
        names = [
            sample_name(sample)
            for sample, is_finite in zip(data_samples, finite.tolist(), strict=True)
            if not is_finite
        ]
        raise FloatingPointError(
            f'Stage {stage} of the decoder yields NaN or infinity for '
            f'{", ".join(names)}; check these samples, lower the learning rate or clip '
            'gradients, and go on from the last checkpoint.'
        )


def check_losses(
    losses: dict[str, Tensor], data_samples: Sequence[ActionDataSample]
) -> None:
    """Stop at a loss that is no number."""
    finite = torch.stack([*losses.values()]).isfinite()
    if not finite.all():
        names = [
            name for name, ok in zip(losses, finite.tolist(), strict=True) if not ok
        ]
        samples = ', '.join(map(sample_name, data_samples))
        raise FloatingPointError(
            f'{", ".join(names)} of the batch {samples} is NaN or infinite; check the '
            'annotation of these samples and the learning rate, and go on from the '
            'last checkpoint.'
        )


def sample_name(sample: ActionDataSample) -> str:
    """How a sample is called in messages."""
    name = sample.get('img_key') or sample.get('video_id') or 'a sample without a name'
    return f"'{name}'"
