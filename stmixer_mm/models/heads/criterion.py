"""The criterion of set prediction: queries are matched to persons and compared.

Shapes: S stages, B clips, Q queries, A actions, k persons of a clip, n rows.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmdet.models import losses
from mmengine.dist import all_reduce, get_world_size
from mmengine.model import BaseModule
from torch import Tensor, nn

from stmixer_mm.errors import UserError
from stmixer_mm.models.finite import (
    FiniteCheck,
    check_finite,
    check_together,
    sample_name,
)
from stmixer_mm.models.heads.matching import (
    PERSON,
    Samples,
    Truth,
    match_persons,
    person_margin,
)
from stmixer_mm.models.heads.targets import Rows, Targets, make_targets
from stmixer_mm.registry import MODELS, TASK_UTILS
from stmixer_mm.structures import PRESENT, StageOutput

Stages = Sequence[StageOutput]
# The loss of a row does not depend on the others, so that one call has all stages.
ELEMENTWISE = (
    *(losses.CrossEntropyLoss, losses.FocalLoss),
    *(losses.L1Loss, losses.SmoothL1Loss, losses.MSELoss),
    *(losses.IoULoss, losses.GIoULoss, losses.DIoULoss, losses.CIoULoss),
)


class Compared(NamedTuple):
    """Queries that were matched to persons and compared with them."""

    losses: dict[str, Tensor]  # weighted terms
    targets: Targets
    check: FiniteCheck  # of predictions and losses


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
        if sigmoid and not is_mean_over_actions(self.loss_action, self.num_classes - 1):
            raise UserError(
                f'loss_action={type(self.loss_action).__name__} is not a mean over the '
                'actions, so that their number would multiply it once more; take a mean, '
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
            if not self.single_label:
                continue
            if labels.dim() == 3:
                labels = labels[sample.gt_instances.states == PRESENT]
            if ((labels[:, 1:] > 0).sum(dim=1) > 1).any():
                raise UserError(
                    f'A person of {sample_name(sample)} has several actions but the '
                    'head has single_label=True; correct one of the two.'
                )

    def loss(self, stages: Stages, data_samples: Samples) -> dict[str, Tensor]:
        """The terms of :meth:`loss_and_match`, of ground truth that is checked first."""
        self.check_truth(data_samples)
        found = self.loss_and_match(stages, data_samples)
        check_together([found.check])
        return found.losses

    def loss_and_match(
        self,
        stages: Stages,
        data_samples: Samples,
        known: Tensor | None = None,
        groups: Sequence[tuple[str, int]] | None = None,
    ) -> Compared:
        """Match and compare all queries; the host waits for the device once.

        Args:
            stages: Predictions of Q queries.
            data_samples: The ground truth.
            known: The persons of the last N queries, which need no matching, (B, N), on
                the host: i + 1 for the i-th of the clip, 0 for none, -1 for a query
                that counts nowhere.
            groups: Prefixes of the names, each with the number of its queries, whose
                losses are means of their own. Persons known in the first group are
                taken there. Before the prefix, all stages but the last have ``d0.``
                etc.
        """
        stages = type(stages[0])(*map(torch.stack, zip(*stages, strict=True)))
        stages = self.read(stages, data_samples[0].metainfo.get('clip_len'))
        groups = groups or [('', stages.bboxes.size(2))]
        prefixes, sizes = zip(*groups, strict=True)
        match = self.match
        if torch.compiler.is_compiling():  # else it would load the compiler for nothing
            match = torch.compiler.disable(match)  # on the host, in numpy
        targets = match(stages, data_samples, known, sizes)
        terms = self.compare(stages, targets)
        finite = [value.isfinite().all() for value in (*stages, *terms.values())]
        explain = partial(explain_infinite, stages, data_samples, terms)
        numbers = [f'd{number}.' for number in range(len(stages.bboxes) - 1)]
        names = [number + prefix for prefix in prefixes for number in (*numbers, '')]
        losses = {
            f'{name}{term}': value
            for name, *values in zip(names, *terms.values(), strict=True)
            for term, value in zip(terms, values, strict=True)
        }
        return Compared(
            losses, targets, FiniteCheck(torch.stack(finite).all(), explain)
        )

    @torch.no_grad()
    def match(
        self,
        stages: StageOutput,
        data_samples: Samples,
        known: Tensor | None = None,
        sizes: Sequence[int] | None = None,
    ) -> Targets:
        """The truth for groups of queries of all stages, of predictions (S, B, Q, ·)."""
        if known is None:
            known = torch.zeros(len(data_samples), 0, dtype=torch.long)
        sizes = sizes or [stages.bboxes.size(2)]
        truth = Truth.of(data_samples, stages.bboxes.device)
        explain = partial(explain_infinite, stages, data_samples)
        options = dict(first=sizes[0], assigner=self.assigner, check=explain)
        matching = match_persons(stages, truth, known.numpy(), data_samples, **options)
        return make_targets(matching, truth, sizes)

    def read(self, stage: StageOutput, clip_len: int | None) -> StageOutput:
        """Predictions of a stage, or of [S], float32; of tubelets, in the K frames."""
        return in_float32(stage)

    def compare(self, stages: StageOutput, targets: Targets) -> dict[str, Tensor]:
        """The four terms of the stages of all groups, of predictions (S, B, Q, ·)."""
        flat = StageOutput(*(values.flatten(0, -2) for values in stages))
        logits, labels = targets.counted.of(flat.person_logits), targets.person_labels
        bboxes, truth = targets.boxed.of(flat.bboxes), targets.bboxes
        scale = targets.box_scale
        acting, action_logits, actions = self.get_actions(flat.action_logits, targets)
        totals = torch.stack(
            (
                targets.boxed.totals.to(logits),
                targets.acting.totals.to(logits),
                sum_weights(self.loss_person, labels, targets.counted),
                sum_weights(self.loss_action, actions, acting),
            )
        )
        # Divided on each rank by the ranks' mean totals, losses averaged over the ranks
        # are those of one process for all samples together.
        all_reduce(totals, op='mean')
        boxes, pairs, person_weight, action_weight = totals
        if self.sigmoid_person:
            person_weight = boxes.clamp(min=1 / get_world_size())
            logits = person_margin(logits)[:, None]
            labels = (labels == PERSON)[:, None].to(bboxes)

        def mean_action(logits: Tensor, labels: Tensor, avg_factor: Tensor) -> Tensor:
            # From a mean over persons and actions to a sum over the actions.
            share = (self.num_classes - 1) * len(labels) / avg_factor
            return self.loss_action(logits, labels) * share

        person = self.loss_person, targets.counted, logits, labels, person_weight
        action = self.loss_action, acting, action_logits, actions
        boxed = targets.boxed
        return dict(
            loss_person=sum_loss(*person),
            loss_bbox=sum_loss(
                self.loss_bbox, boxed, bboxes / scale, truth / scale, boxes
            ),
            loss_iou=sum_loss(self.loss_iou, boxed, bboxes, truth, boxes),
            loss_action=sum_loss(*action, action_weight)
            if self.single_label
            else sum_loss(*action, pairs, of_stage=mean_action),
        )

    def get_actions(
        self, action_logits: Tensor, targets: Targets
    ) -> tuple[Rows, Tensor, Tensor]:
        """Rows, logits and labels for ``loss_action``, (n, A), of the matched queries.

        With ``single_label`` (n, A + 1) and (n,), of all that count; 0 is background.
        """
        acting, heard = targets.acting, targets.heard
        if not self.single_label:
            return acting, acting.of(action_logits), targets.actions
        labels = targets.persons.new_zeros(len(action_logits))
        has_action, action = targets.actions.max(dim=-1)
        labels[acting.index] = torch.where(has_action > 0, action + 1, 0)
        return heard, F.pad(heard.of(action_logits), (1, 0)), heard.of(labels)


def sum_loss(
    loss: nn.Module,
    rows: Rows,
    pred: Tensor,
    target: Tensor,
    totals: Tensor,
    of_stage: Callable | None = None,
) -> Tensor:
    """Losses of all stages over their totals, (S,); one call where each row counts alone.

    Args:
        loss: One of mmdet's, or any that is called like them.
        rows: Where ``pred`` and ``target``, (n, ·), come from.
        totals: ``avg_factor`` of each stage, (S,).
        of_stage: Calls ``loss`` for one stage.
    """
    if not len(pred):  # the losses' own means over nothing are NaN, or lack a gradient
        return pred.sum().expand(len(totals))
    if type(loss) in ELEMENTWISE and not getattr(loss, 'avg_non_ignore', False):
        values = rows.sum(loss(pred, target, reduction_override='none'))
        return values / (totals + torch.finfo(totals.dtype).eps)  # as the hosts divide
    pairs = pred.split(rows.sizes), target.split(rows.sizes)
    return torch.stack(
        [
            (of_stage or loss)(*pair, avg_factor=total)
            if len(pair[0])
            else pair[0].sum()
            for *pair, total in zip(*pairs, totals, strict=True)
        ]
    )


def explain_infinite(
    stages: StageOutput,
    data_samples: Samples,
    terms: Mapping[str, Tensor] | None = None,
) -> None:
    """Raise ``UserError`` for what is not finite, the first stage first."""
    for number, stage in enumerate(zip(*stages, strict=True)):
        names = [f'{name} of stage {number}' for name in stages._fields]
        check_finite(dict(zip(names, stage, strict=True)), data_samples)
    size = len(data_samples), 1
    means = {name: value.sum().expand(size) for name, value in (terms or {}).items()}
    check_finite(means, data_samples)


def wants_logits(loss: nn.Module, num_actions: int) -> bool:
    """Whether a loss of logits and multi-hot labels is lowest where a sigmoid is."""
    labels = torch.tensor([[1.0], [0.0]]).expand(-1, num_actions)
    with suppress(Exception):  # what it is called with shows in the first step
        sure, undecided = (
            float(deepcopy(loss)(scale * (labels - 0.5), labels)) for scale in (8, 0)
        )
        return sure <= undecided
    return True


def is_mean_over_actions(loss: nn.Module, num_actions: int) -> bool:
    """Whether a loss stays as it is where each action is there twice."""
    logits = torch.linspace(-2, 2, 2 * num_actions).view(2, -1)
    labels = torch.tensor([[1.0], [0.0]]).expand(-1, num_actions)
    with suppress(Exception):  # as above
        once, twice = (
            float(deepcopy(loss)(logits.repeat(1, times), labels.repeat(1, times)))
            for times in (1, 2)
        )
        return math.isclose(once, twice, rel_tol=0.01)
    return True


def sum_weights(loss: nn.Module, labels: Tensor, rows: Rows) -> Tensor:
    """Sums (S,) of a softmax loss's class weights over class numbers (n,); else 0."""
    if labels.dim() > 1 or getattr(loss, 'use_sigmoid', False):
        return labels.new_zeros(len(rows.sizes), dtype=torch.float32)
    class_weight = getattr(loss, 'class_weight', None)
    if class_weight is None:
        return rows.totals.float()
    return rows.sum(labels.new_tensor(class_weight, dtype=torch.float32)[labels])


def in_float32(stage: StageOutput) -> StageOutput:
    return type(stage)(*(values.float() for values in stage))
