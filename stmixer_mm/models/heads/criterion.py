"""The criterion of set prediction: queries are matched to persons and compared.

Shapes: S stages, B clips, Q queries, A actions, n rows; [K]: of tubelets there is a
value for each of the K frames.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models import losses
from mmengine.dist import all_reduce, get_world_size
from mmengine.model import BaseModule
from torch import Tensor, nn

from stmixer_mm.errors import UserError
from stmixer_mm.models.data_preprocessor import move_together
from stmixer_mm.models.finite import check_losses, sample_name
from stmixer_mm.models.heads.matching import (
    Samples,
    Stages,
    match_persons,
    person_log_odds,
)
from stmixer_mm.models.heads.targets import PERSON, Targets, make_targets
from stmixer_mm.registry import MODELS, TASK_UTILS
from stmixer_mm.structures import PRESENT, StageOutput


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
        single_label: A person has one action at most. ``loss_action`` is then a
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
        self.has_one_logit = getattr(self.loss_person, 'use_sigmoid', False)
        check_action_loss(self.loss_action, single_label)

    def check_truth(self, data_samples: Samples) -> None:
        """Refuse persons of another kind than the head's."""
        for sample in data_samples:
            bboxes, labels = sample.gt_instances.bboxes, sample.gt_instances.labels
            if bboxes.dim() != self.box_dims:
                raise UserError(
                    f'The boxes of {sample_name(sample)} are {tuple(bboxes.shape)}, not '
                    f'what {type(self).__name__} learns from; change one of the two.'
                )
            if not self.single_label:
                continue
            if labels.dim() == 3:
                labels = labels[sample.gt_instances.states == PRESENT]
            if ((labels[:, 1:] > 0).sum(dim=1) > 1).any():
                raise UserError(
                    f'A person of {sample_name(sample)} has several actions but the '
                    'head has single_label=True; correct one of the two.'
                )

    def loss(
        self,
        stages: Stages,
        data_samples: Samples,
        known_persons: Mapping[str, Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Match queries to persons and compare all.

        Args:
            stages: Predictions of Q queries, then of those whose persons are known.
            data_samples: The ground truth.
            known_persons: The persons of groups of queries, (B, D), on the host, by the
                prefix of the group's losses, which are means of their own: i + 1 for
                the i-th of the clip, 0 for none, -1 for a query that counts nowhere.

        Returns:
            The weighted terms, and the persons of the Q queries in the last stage,
            (B, Q), on the host. Names of all stages but the last begin with ``d0.``
            etc., then comes the group's prefix.

        Raises:
            UserError: the truth is of another kind than the head's, or something is not
                finite.
        """
        self.check_truth(data_samples)
        clip_len = data_samples[0].metainfo.get('clip_len')
        stages = [self.read(stage, clip_len) for stage in stages]
        match = self.match
        if torch.compiler.is_compiling():  # else it would load the compiler for nothing
            match = torch.compiler.disable(match)  # on the host, in numpy
        targets, totals, persons = match(stages, data_samples, known_persons or {})
        # Divided on each rank by the ranks' mean totals, losses averaged over the ranks
        # are those of one process for all samples together.
        all_reduce(totals, op='mean')
        terms = {}
        for number, (prefix, stage_targets) in enumerate(targets.items()):
            stage = stages[number % len(stages)]
            stage_terms = self.compare(stage, stage_targets, totals[number])
            terms |= {prefix + name: value for name, value in stage_terms.items()}
        check_losses(stages, data_samples, terms)
        return terms, persons

    @torch.no_grad()
    def match(
        self,
        stages: Stages,
        data_samples: Samples,
        known_persons: Mapping[str, Tensor],
    ) -> tuple[dict[str, Targets], Tensor, Tensor]:
        """Targets of all groups of queries in all stages.

        The host waits for the device once, and sends it all targets in one copy.

        Returns:
            The targets by the prefix of their losses, the stages of one group after
            those of another, what the losses are divided by (n, 3), see :meth:`count`,
            and the persons of the matched queries in the last stage.
        """
        num_clips, num_queries = stages[0].bboxes.shape[:2]
        num_known = sum(persons.size(1) for persons in known_persons.values())
        matched, truth = match_persons(
            stages, data_samples, num_queries - num_known, self.assigner
        )
        places = [*(f'd{number}.' for number in range(len(stages) - 1)), '']
        targets, first = {}, 0
        for prefix, persons in {'': matched, **known_persons}.items():
            last = first + persons.shape[-1]
            rows = np.full((len(stages), num_clips, num_queries), -1)
            rows[..., first:last] = persons
            first = last
            for place, stage_rows in zip(places, rows, strict=True):
                targets[place + prefix] = make_targets(
                    stage_rows, truth, self.single_label
                )
        totals = [self.count(target) for target in targets.values()]
        targets, totals = move_together(
            (targets, torch.tensor(totals, dtype=torch.float32)),
            stages[0].bboxes.device,
        )
        return targets, totals, torch.from_numpy(matched[-1])

    def count(self, targets: Targets) -> tuple[float, float, float]:
        """Divisors of losses: weights of persons, boxes, weights of actions."""
        num_boxes = len(targets.bboxes)
        persons, actions = num_boxes, len(targets.actions)
        if not self.has_one_logit:
            persons = sum_weights(self.loss_person, targets.persons)
        if self.single_label:
            actions = sum_weights(self.loss_action, targets.actions)
        return persons, num_boxes, actions

    def read(self, stage: StageOutput, clip_len: int | None) -> StageOutput:
        """Predictions of a stage, float32; of tubelets, in the K frames."""
        return type(stage)(*(values.float() for values in stage))

    def compare(
        self, stage: StageOutput, targets: Targets, totals: Tensor
    ) -> dict[str, Tensor]:
        """The four terms of a stage."""
        person_total, num_boxes, action_total = totals
        person_logits = take_rows(stage.person_logits, targets.person_rows)
        persons = targets.persons
        if self.has_one_logit:
            person_total = person_total.clamp(min=1 / get_world_size())
            person_logits = person_log_odds(person_logits)[:, None]
            persons = (persons == PERSON)[:, None].to(person_logits)
        bboxes, scale = take_rows(stage.bboxes, targets.box_rows), targets.box_scale
        action_logits = take_rows(stage.action_logits, targets.action_rows)
        if self.single_label:
            action_logits = F.pad(action_logits, (1, 0))  # background
            loss_action = divided_loss(
                self.loss_action, action_logits, targets.actions, action_total
            )
        elif len(action_logits):
            # From a mean over persons and actions to a sum over the actions.
            loss_action = self.loss_action(action_logits, targets.actions)
            loss_action = loss_action * (action_logits.numel() / action_total)
        else:
            loss_action = action_logits.sum()
        return dict(
            loss_person=divided_loss(
                self.loss_person, person_logits, persons, person_total
            ),
            loss_bbox=divided_loss(
                self.loss_bbox, bboxes / scale, targets.bboxes / scale, num_boxes
            ),
            loss_iou=divided_loss(self.loss_iou, bboxes, targets.bboxes, num_boxes),
            loss_action=loss_action,
        )


def take_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Rows (n, ·) of predictions (B, Q, [K], ·)."""
    return values.flatten(0, -2).index_select(0, rows)


def divided_loss(
    loss: nn.Module, pred: Tensor, target: Tensor, total: Tensor
) -> Tensor:
    """The sum of losses over their total; of nothing a zero with a gradient."""
    return loss(pred, target, avg_factor=total) if len(pred) else pred.sum()


def sum_weights(loss: nn.Module, labels: Tensor) -> float:
    """Sum of a softmax loss's class weights over class numbers (n,)."""
    class_weight = getattr(loss, 'class_weight', None)
    return len(labels) if class_weight is None else np.take(class_weight, labels).sum()


def check_action_loss(loss: nn.Module, single_label: bool) -> None:
    """Refuse losses that would train something else unnoticed."""
    if getattr(loss, 'use_sigmoid', None) is not (not single_label):
        raise UserError(
            f'loss_action={type(loss).__name__} does not go with single_label='
            f'{single_label}; take one of logits with use_sigmoid={not single_label}, such '
            'as mmdet.CrossEntropyLoss.'
        )
    if isinstance(loss, losses.QualityFocalLoss):
        raise UserError(
            'loss_action=QualityFocalLoss is a sum over the actions, which their number '
            'would multiply once more; take a mean, such as mmdet.FocalLoss.'
        )
