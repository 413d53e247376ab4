"""The head: matching, targets, losses and predictions of set prediction.

Shapes: B clips, Q queries, A actions, n matched pairs. It has no parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.dist import all_reduce, get_world_size
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor

from stmixer_mm.errors import UserError, choose
from stmixer_mm.models.boxes import frame_scale
from stmixer_mm.models.decoder.stage import StageOutput
from stmixer_mm.models.heads.matching import (
    BACKGROUND,
    PERSON,
    match_clip,
    person_margin,
    score_persons,
)
from stmixer_mm.registry import MODELS, build_hosted

# Scores of a query, of its action scores (n, A) and its person score (n, 1).
SCORE_MODES = {
    'action': lambda actions, person: actions,
    'product': lambda actions, person: actions * person,
}
# What a sigmoid person loss learns of matched queries, of two times boxes (n, 4).
PERSON_TARGETS = {
    'label': lambda bboxes, gt_bboxes: 1.0,
    'iou': lambda bboxes, gt_bboxes: bbox_overlaps(bboxes, gt_bboxes, is_aligned=True),
}


class Targets(NamedTuple):
    """What the queries of a batch should say, from one stage's matching."""

    person_labels: Tensor  # (B, Q): PERSON or BACKGROUND
    counted: Tensor  # (B, Q) bool: the queries whose person label counts
    matched: Tensor  # (B, Q) bool: the queries of the n matched pairs
    bboxes: Tensor  # (n, 4): pixel xyxy, in the order of the matched queries
    actions: Tensor  # (n, A): multi-hot
    box_scale: Tensor  # (n, 4): w, h, w, h of the frame without padding


@MODELS.register_module()
class STMixerHead(BaseModule):
    """Match queries to persons, and turn what they say into losses or scores.

    The parts may be any of mmdet's that fit.

    Args:
        assigner: Compares queries with the ground truth, e.g.
            ``mmdet.HungarianAssigner``; a person may get several queries, as from
            ``mmdet.MaxIoUAssigner``, to which the queries' boxes are priors.
        loss_person: Loss of (Q, 2) logits; its ``class_weight`` weighs person and
            background. A loss with ``use_sigmoid=True``, e.g. ``mmdet.FocalLoss``,
            gets their difference as its one logit and is divided by the number of
            matched queries. Scores are the same of both.
        loss_bbox: Loss of boxes normalised by the frame.
        loss_iou: Loss of pixel boxes.
        loss_action: Loss of (n, A) logits on multi-hot labels, a mean over all of
            them. The head multiplies it by A, so that its ``loss_weight`` is that of
            one action, however many there are.
        num_classes: Number of action classes plus one, the host's dummy class 0.
        score_thr: Keep queries whose person score reaches it, in [0, 1].
        fallback_topk: Where no query reaches it, keep this many of the best.
        score_mode: 'action' for action scores as they are, 'product' for action
            scores times person score.
        sampler: Chooses the queries that count in the losses, e.g.
            ``mmdet.RandomSampler``; None for all.
        person_target: What a sigmoid ``loss_person`` learns of matched queries:
            'label' for 1, 'iou' for the IoU of their box with the person's, for
            ``mmdet.QualityFocalLoss`` and ``mmdet.VarifocalLoss``.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.

    Raises:
        UserError: An argument is out of range, or a part would go wrong unnoticed.
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
        score_mode: Literal['action', 'product'] = 'action',
        sampler: dict | None = None,
        person_target: Literal['label', 'iou'] = 'label',
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if not 0 <= score_thr <= 1 or fallback_topk < 0:
            raise UserError(
                f'The head has score_thr={score_thr}, which has to be in [0, 1], and '
                f'fallback_topk={fallback_topk}, which has to be 0 or more; correct '
                'the one that is not.'
            )
        self.num_classes = num_classes
        self.score_thr = score_thr
        self.fallback_topk = fallback_topk
        self.score_actions = choose('score_mode', score_mode, SCORE_MODES)
        self.measure_presence = choose('person_target', person_target, PERSON_TARGETS)
        self.assigner = build_hosted(assigner, TASK_UTILS)
        self.sampler = None if sampler is None else build_hosted(sampler, TASK_UTILS)
        self.loss_person = MODELS.build(loss_person)
        # One logit, the margin of a person, instead of two.
        self.sigmoid_person = getattr(self.loss_person, 'use_sigmoid', False)
        self.loss_bbox = MODELS.build(loss_bbox)
        self.loss_iou = MODELS.build(loss_iou)
        self.loss_action = MODELS.build(loss_action)
        self.check_parts(person_target)

    def check_parts(self, person_target: str) -> None:
        """Refuse what would train something else unnoticed."""
        sigmoid, name = self.sigmoid_person, type(self.loss_person).__name__
        class_weight = getattr(self.loss_person, 'class_weight', None)
        if class_weight is not None and len(class_weight) != (1 if sigmoid else 2):
            raise UserError(
                f'loss_person={name} with use_sigmoid={sigmoid} has class_weight='
                f'{list(class_weight)}; give 1 weight to a sigmoid, 2 to a softmax, or '
                'None (a child config that replaces a loss wants _delete_=True).'
            )
        if person_target != 'label' and not sigmoid:
            raise UserError(
                f'loss_person={name} uses a softmax, which learns no person_target='
                f'{person_target!r}; take a loss with use_sigmoid=True, or '
                "person_target='label'."
            )
        if not getattr(self.loss_action, 'use_sigmoid', True):
            raise UserError(
                f'loss_action={type(self.loss_action).__name__} uses a softmax, but a '
                'person does several actions at once; set use_sigmoid=True.'
            )
        if getattr(self.sampler, 'add_gt_as_proposals', False):
            raise UserError(
                'The sampler of the head has add_gt_as_proposals=True, but an '
                'annotated box is not a query; set it to False.'
            )

    def loss(
        self, outputs: Sequence[StageOutput], data_samples: Sequence[ActionDataSample]
    ) -> dict[str, Tensor]:
        """Weighted loss terms of all stages; those before the last are named ``d0.…``.

        Raises:
            UserError: An output or a loss is not finite.
        """
        return self.loss_by_stages(
            outputs, data_samples, lambda output: self.get_targets(output, data_samples)
        )

    def loss_denoising(
        self,
        outputs: Sequence[StageOutput],
        persons: Tensor,
        data_samples: Sequence[ActionDataSample],
    ) -> dict[str, Tensor]:
        """Weighted loss terms of noised copies of persons: ``dn.…``, ``d0.dn.…``.

        Args:
            outputs: Of the copies alone.
            persons: The person each is a copy of, -1 for padding, (B, Q).
            data_samples: The ground truth.

        Raises:
            UserError: An output or a loss is not finite.
        """
        targets = make_targets(torch.where(persons < 0, -1, persons + 1), data_samples)
        return self.loss_by_stages(outputs, data_samples, lambda _: targets, 'dn.')

    def loss_by_stages(
        self,
        outputs: Sequence[StageOutput],
        data_samples: Sequence[ActionDataSample],
        find_targets: Callable[[StageOutput], Targets],
        prefix: str = '',
    ) -> dict[str, Tensor]:
        """The terms of all stages; ``prefix`` goes before each name."""
        losses = {}
        for stage, output in enumerate(outputs):
            of_stage = f'd{stage}.' if stage < len(outputs) - 1 else ''
            output = StageOutput(*(values.float() for values in output))
            check_finite(
                {f'{name} of stage {stage}': v for name, v in output._asdict().items()},
                data_samples,
            )
            terms = self.loss_by_stage(output, find_targets(output))
            for name, value in terms.items():
                losses[of_stage + prefix + name] = value
        clips = len(data_samples)
        check_finite(
            {name: value.mean().expand(clips, 1) for name, value in losses.items()},
            data_samples,
        )
        return losses

    def loss_by_stage(self, output: StageOutput, targets: Targets) -> dict[str, Tensor]:
        """The four terms of one stage."""
        person_logits = output.person_logits[targets.counted]
        person_labels = targets.person_labels[targets.counted]
        bboxes = output.bboxes[targets.matched]
        action_logits = output.action_logits[targets.matched]
        num_pairs = len(targets.bboxes)

        class_weight = (1.0, 1.0)
        if not self.sigmoid_person:
            class_weight = getattr(self.loss_person, 'class_weight', None) or (1.0, 1.0)
        weight_sum = person_logits.new_tensor(class_weight)[person_labels].sum()
        # Ranks that divide by the mean of their totals give, averaged over the ranks,
        # what one process gives for all samples together.
        totals = torch.stack((weight_sum.new_tensor(num_pairs), weight_sum))
        all_reduce(totals, op='mean')
        avg_pairs, weight_sum = totals
        avg_pairs = avg_pairs.clamp(min=1 / get_world_size())

        # The losses' own means over nothing are NaN, or lack a gradient path.
        losses = dict(
            loss_person=output.person_logits.sum() * 0,
            loss_bbox=output.bboxes.sum() * 0,
            loss_iou=output.bboxes.sum() * 0,
            loss_action=output.action_logits.sum() * 0,
        )
        if len(person_logits) and self.sigmoid_person:
            losses['loss_person'] = self.loss_person(
                person_margin(person_logits)[:, None],
                self.get_presence(bboxes, targets)[:, None],
                avg_factor=avg_pairs,
            )
        elif len(person_logits):
            losses['loss_person'] = self.loss_person(
                person_logits, person_labels, avg_factor=weight_sum
            )
        if num_pairs:
            losses['loss_bbox'] = self.loss_bbox(
                bboxes / targets.box_scale,
                targets.bboxes / targets.box_scale,
                avg_factor=avg_pairs,
            )
            losses['loss_iou'] = self.loss_iou(
                bboxes, targets.bboxes, avg_factor=avg_pairs
            )
            action_loss = self.loss_action(action_logits, targets.actions)
            # From a mean over pairs and actions to a sum over the actions.
            num_actions = self.num_classes - 1
            losses['loss_action'] = action_loss * num_actions * (num_pairs / avg_pairs)
        return losses

    @torch.no_grad()
    def get_presence(self, bboxes: Tensor, targets: Targets) -> Tensor:
        """How much of a person each counted query is, in [0, 1]."""
        presence = torch.zeros_like(targets.matched, dtype=bboxes.dtype)
        presence[targets.matched] = self.measure_presence(bboxes, targets.bboxes)
        return presence[targets.counted]

    @torch.no_grad()
    def get_targets(
        self, output: StageOutput, data_samples: Sequence[ActionDataSample]
    ) -> Targets:
        """Match the queries of each clip to its persons."""
        assigned = [
            match_clip(
                person_logits,
                bboxes,
                sample.gt_instances,
                sample.metainfo,
                assigner=self.assigner,
                sampler=self.sampler,
            )
            for sample, person_logits, bboxes in zip(
                data_samples, output.person_logits, output.bboxes, strict=True
            )
        ]
        return make_targets(torch.stack(assigned), data_samples)

    def predict(
        self, outputs: Sequence[StageOutput], data_samples: Sequence[ActionDataSample]
    ) -> list[InstanceData]:
        """Predictions of the last stage for each clip, of which n queries are kept.

        ``bboxes`` (n, 4) are xyxy normalised by the frame without padding, ``scores``
        (n, num_classes) have the host's dummy column 0, ``person_scores`` (n,).
        """
        last = StageOutput(*(values.float() for values in outputs[-1]))
        return [
            self.predict_by_clip(StageOutput(*output), sample.metainfo['img_shape'])
            for sample, *output in zip(data_samples, *last, strict=True)
        ]

    def predict_by_clip(
        self, output: StageOutput, img_shape: tuple[int, int]
    ) -> InstanceData:
        """Predictions of one clip from its part of a :class:`StageOutput`."""
        person_scores = score_persons(output.person_logits)
        keep = (person_scores >= self.score_thr).nonzero().squeeze(1)
        if len(keep) == 0:
            number = min(self.fallback_topk, len(person_scores))
            keep = person_scores.topk(number).indices
        scores = self.score_actions(
            output.action_logits[keep].sigmoid(), person_scores[keep, None]
        )
        scale = frame_scale(img_shape, output.bboxes)
        bboxes = torch.minimum(output.bboxes[keep].clamp(min=0), scale - 1) / scale
        return InstanceData(
            bboxes=bboxes,
            scores=F.pad(scores, (1, 0)),
            person_scores=person_scores[keep],
        )


def make_targets(assigned: Tensor, data_samples: Sequence[ActionDataSample]) -> Targets:
    """What queries should say whose persons are known.

    Args:
        assigned: i + 1 for the i-th person of the clip, 0 for none, -1 for a query
            that counts nowhere, (B, Q).
        data_samples: The ground truth.
    """
    bboxes, actions, scales = [], [], []
    for sample, persons in zip(data_samples, assigned, strict=True):
        gt_instances = sample.gt_instances
        pairs = persons[persons > 0] - 1
        bboxes.append(gt_instances.bboxes.to(pairs.device, torch.float32)[pairs])
        actions.append(gt_instances.labels.to(pairs.device)[pairs, 1:].float())
        scale = frame_scale(sample.metainfo['img_shape'], bboxes[-1])
        scales.append(scale.expand(len(pairs), 4))
    matched = assigned > 0
    return Targets(
        person_labels=torch.where(matched, PERSON, BACKGROUND),
        counted=assigned >= 0,
        matched=matched,
        bboxes=torch.cat(bboxes),
        actions=torch.cat(actions),
        box_scale=torch.cat(scales),
    )


def check_finite(
    values: Mapping[str, Tensor], data_samples: Sequence[ActionDataSample]
) -> None:
    """Stop at what is not a number.

    Args:
        values: By name, (B, …).
        data_samples: The B samples, for their names.

    Raises:
        UserError: Names the values and the samples.
    """
    finite = [value.flatten(1).isfinite().all(1) for value in values.values()]
    wrong = ~torch.stack(finite).cpu()
    if wrong.any():
        samples = map(sample_name, compress(data_samples, wrong.any(0)))
        raise UserError(
            f'{", ".join(compress(values, wrong.any(1)))} of {", ".join(samples)} is '
            'NaN or infinite; check the annotation of these samples, lower the '
            'learning rate or clip gradients, and go on from the last checkpoint.'
        )


def sample_name(sample: ActionDataSample) -> str:
    """How a sample is called in messages."""
    name = sample.get('img_key') or sample.get('video_id') or 'a sample without a name'
    return f"'{name}'"
