"""The criterion of set prediction: queries are matched to persons and compared.

Shapes: B clips, Q queries, A actions, k persons of a clip, n matched pairs.
"""

from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy

import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmengine.dist import all_reduce, get_world_size
from mmengine.model import BaseModule
from torch import Tensor, nn

from stmixer_mm.errors import UserError
from stmixer_mm.models.finite import check_finite, sample_name
from stmixer_mm.models.heads.matching import (
    Targets,
    make_targets,
    match_clip,
    person_margin,
)
from stmixer_mm.registry import MODELS, TASK_UTILS
from stmixer_mm.structures import PRESENT, StageOutput

Stages = Sequence[StageOutput]
Samples = Sequence[ActionDataSample]


class SetCriterion(BaseModule):
    """Match queries to persons and compare the pairs, by any parts of mmdet that fit.

    Args:
        assigner: Compares queries with the ground truth; a person may get several
            queries, as from ``mmdet.MaxIoUAssigner``, whose priors are their boxes.
        loss_person: Loss of (Q, 2) logits; its ``class_weight`` weighs person and
            background. A loss with ``use_sigmoid=True``, e.g. ``mmdet.FocalLoss``,
            gets their difference as its one logit and is divided by the number of
            matched queries. Scores are the same with both.
        loss_bbox: Loss of boxes normalised by the frame.
        loss_iou: Loss of pixel boxes.
        loss_action: Mean loss of (n, A) logits on multi-hot labels. The head multiplies
            it by A, so that its ``loss_weight`` is that of one action.
        num_classes: Number of action classes plus one, the host's dummy class 0.
        single_label: A person has exactly one action. ``loss_action`` is then a
            softmax of the A actions and background, whose logit is 0, for all queries;
            its ``loss_weight`` is that of a person.
    """

    box_dims = 2  # of the boxes of persons, (k, 4)

    def __init__(
        self,
        *,
        assigner: dict,
        loss_person: dict,
        loss_bbox: dict,
        loss_iou: dict,
        loss_action: dict,
        num_classes: int,
        single_label: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.single_label = single_label
        self.assigner = TASK_UTILS.build(assigner)
        self.loss_person = MODELS.build(loss_person)
        self.loss_bbox = MODELS.build(loss_bbox)
        self.loss_iou = MODELS.build(loss_iou)
        self.loss_action = MODELS.build(loss_action)
        # One logit, the margin of a person, instead of two.
        self.sigmoid_person = getattr(self.loss_person, 'use_sigmoid', False)
        self.check_parts()

    def check_parts(self) -> None:
        """Refuse losses that would train something else unnoticed."""
        sigmoid = getattr(self.loss_action, 'use_sigmoid', not self.single_label)
        if sigmoid == self.single_label:
            raise UserError(
                f'loss_action has use_sigmoid={sigmoid} but the head has single_label='
                f'{sigmoid}; a sigmoid is for several actions, a softmax for one.'
            )
        if sigmoid and not wants_logits(self.loss_action, self.num_classes - 1):
            raise UserError(
                f'loss_action={type(self.loss_action).__name__} is higher for logits '
                'that are surely right than for undecided ones; take a loss of logits, '
                'such as mmdet.FocalLoss.'
            )

    def check_truth(self, data_samples: Samples) -> None:
        """Refuse persons of another kind than the head's."""
        for sample in data_samples:
            bboxes, labels = sample.gt_instances.bboxes, sample.gt_instances.labels
            if bboxes.dim() != self.box_dims:
                raise UserError(
                    f'The boxes of {sample_name(sample)} are {tuple(bboxes.shape)}, not '
                    f'what {type(self).__name__} learns from; change one of the two.'
                )
            if labels.dim() == 3:
                labels = labels[sample.gt_instances.states == PRESENT]
            if self.single_label and ((labels[:, 1:] > 0).sum(dim=1) != 1).any():
                raise UserError(
                    f'A person of {sample_name(sample)} has several actions or none but '
                    'the head has single_label=True; correct one of the two.'
                )

    def loss(self, stages: Stages, data_samples: Samples) -> dict[str, Tensor]:
        """The terms of :meth:`loss_and_match`, of ground truth that is checked first."""
        self.check_truth(data_samples)
        return self.loss_and_match(stages, data_samples)[0]

    def loss_and_match(
        self,
        stages: Stages,
        data_samples: Samples,
        known: Tensor | None = None,
        prefix: str = '',
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Weighted loss terms, and the persons of all queries, (B, Q).

        Args:
            stages: Predictions of Q queries.
            data_samples: The ground truth.
            known: The persons of the last N queries, which need no matching, (B, N):
                i + 1 for the i-th of the clip, 0 for none, -1 for a query that counts
                nowhere.
            prefix: Of the names; before it, all stages but the last have ``d0.`` etc.
        """
        losses, persons = {}, None
        for number, stage in enumerate(map(in_float32, stages)):
            named = stage._asdict().items()
            named = {f'{name} of stage {number}': values for name, values in named}
            check_finite(named, data_samples)
            matched = self.match(stage, data_samples, known)
            if matched is not persons:  # all known: the same in each stage
                persons, targets = matched, make_targets(matched, data_samples)
            terms = self.loss_of_stage(stage, targets)
            of_stage = f'd{number}.' if number < len(stages) - 1 else ''
            losses |= {of_stage + prefix + name: v for name, v in terms.items()}
        size = len(data_samples), 1
        means = {name: value.mean().expand(size) for name, value in losses.items()}
        check_finite(means, data_samples)
        return losses, persons

    @torch.no_grad()
    def match(
        self,
        stage: StageOutput,
        data_samples: Samples,
        known: Tensor | None = None,
    ) -> Tensor:
        """The person of each query, (B, Q), see :meth:`loss_and_match`."""
        if known is None:
            known = stage.bboxes.new_zeros(len(data_samples), 0, dtype=torch.long)
        if known.size(1) == stage.bboxes.size(1):
            return known
        clips = zip(stage.person_logits, stage.bboxes, known, data_samples, strict=True)
        return torch.stack(
            [match_clip(*clip, assigner=self.assigner) for clip in clips]
        )

    def loss_of_stage(self, stage: StageOutput, targets: Targets) -> dict[str, Tensor]:
        """The four terms of one stage."""
        logits = stage.person_logits[targets.counted]
        labels = targets.person_labels[targets.counted]
        bboxes, truth = stage.bboxes[targets.boxed], targets.bboxes
        scale = targets.box_scale
        action_logits, actions = self.get_actions(stage, targets)
        counts = logits.new_tensor((len(bboxes), len(actions)))
        person_weight = sum_weights(self.loss_person, labels)
        action_weight = sum_weights(self.loss_action, actions)
        totals = torch.stack((*counts, person_weight, action_weight))
        # Divided on each rank by the ranks' mean totals, losses averaged over the ranks
        # are those of one process for all samples together.
        all_reduce(totals, op='mean')
        boxes, acting, person_weight, action_weight = totals
        if self.sigmoid_person:
            person_weight = boxes.clamp(min=1 / get_world_size())
            logits = person_margin(logits)[:, None]
            labels = targets.boxed[targets.counted][:, None].to(bboxes)

        def compare(loss, pred, target, total):
            # The losses' own means over nothing are NaN, or lack a gradient path.
            return loss(pred, target, avg_factor=total) if len(pred) else pred.sum()

        if self.single_label or not len(actions):
            action = compare(self.loss_action, action_logits, actions, action_weight)
        else:  # from a mean over persons and actions to a sum over the actions
            num_actions, share = self.num_classes - 1, len(actions) / acting
            action = self.loss_action(action_logits, actions) * num_actions * share
        return dict(
            loss_person=compare(self.loss_person, logits, labels, person_weight),
            loss_bbox=compare(self.loss_bbox, bboxes / scale, truth / scale, boxes),
            loss_iou=compare(self.loss_iou, bboxes, truth, boxes),
            loss_action=action,
        )

    def get_actions(
        self, stage: StageOutput, targets: Targets
    ) -> tuple[Tensor, Tensor]:
        """Logits and labels for ``loss_action``, (n, A), of the matched queries.

        With ``single_label`` (N, A + 1) and (N,), of all that count; 0 is background.
        """
        acting = targets.acting
        if not self.single_label:
            return stage.action_logits[acting], targets.actions
        labels = torch.zeros_like(acting, dtype=torch.long)
        labels[acting] = targets.actions.argmax(dim=-1) + 1
        counted = targets.counted.reshape(*labels.shape, -1).any(dim=-1)
        return F.pad(stage.action_logits, (1, 0))[counted], labels[counted]


@torch.no_grad()
def wants_logits(loss: nn.Module, num_actions: int) -> bool:
    """Whether a loss of logits and multi-hot labels is lowest where a sigmoid is."""
    labels = torch.tensor([[1.0], [0.0]]).expand(-1, num_actions)
    with suppress(Exception):  # what it is called with shows in the first step
        sure, undecided = (
            float(deepcopy(loss)(scale * (labels - 0.5), labels)) for scale in (8, 0)
        )
        return sure <= undecided
    return True


def sum_weights(loss: object, labels: Tensor) -> Tensor:
    """Sum of a softmax loss's class weights over class numbers (N,); else 0."""
    if labels.dim() > 1 or getattr(loss, 'use_sigmoid', False):
        return labels.new_zeros((), dtype=torch.float32)
    class_weight = getattr(loss, 'class_weight', None)
    if class_weight is None:
        return labels.new_tensor(len(labels), dtype=torch.float32)
    return labels.new_tensor(class_weight, dtype=torch.float32)[labels].sum()


def in_float32(stage: StageOutput) -> StageOutput:
    return type(stage)(*(values.float() for values in stage))
