"""The criterion of set prediction: queries are matched to persons and compared.

Shapes: B clips, Q queries, A actions, k persons of a clip, n matched pairs.
"""

from collections.abc import Mapping, Sequence
from itertools import compress

import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmengine.dist import all_reduce, get_world_size
from mmengine.model import BaseModule
from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.models.heads.matching import (
    Targets,
    make_targets,
    match_clip,
    person_margin,
)
from stmixer_mm.registry import MODELS, TASK_UTILS
from stmixer_mm.structures import PRESENT, StageOutput


class SetCriterion(BaseModule):
    """Match queries to persons and compare the pairs; it has no parameters.

    The parts may be any of mmdet's that fit.

    Args:
        assigner: Compares queries with the ground truth, e.g.
            ``mmdet.HungarianAssigner``; a person may get several queries, as from
            ``mmdet.MaxIoUAssigner``, to which the queries' boxes are priors.
        loss_person: Loss of (Q, 2) logits; its ``class_weight`` weighs person and
            background. A loss with ``use_sigmoid=True``, e.g. ``mmdet.FocalLoss``,
            gets their difference as its one logit and is divided by the number of
            matched queries. Scores are the same with both.
        loss_bbox: Loss of boxes normalised by the frame.
        loss_iou: Loss of pixel boxes.
        loss_action: Loss of (n, A) logits on multi-hot labels, a mean over all of
            them. The head multiplies it by A, so that its ``loss_weight`` is that of
            one action, however many there are.
        num_classes: Number of action classes plus one, the host's dummy class 0.
        single_label: A person has exactly one action. ``loss_action`` is then a
            softmax over the A actions and background, whose logit is 0 and whose
            weight is the first of its ``class_weight``; queries without a person learn
            background. Its ``loss_weight`` is that of a person.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.
    """

    box_dims, box_shape = 2, '(k, 4), boxes in one frame'

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
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
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
        sigmoid = not self.single_label
        if getattr(self.loss_action, 'use_sigmoid', sigmoid) != sigmoid:
            raise UserError(
                f'loss_action has use_sigmoid={not sigmoid} but the head has '
                f'single_label={not sigmoid}; a sigmoid is for several actions of a '
                'person, a softmax for a single one.'
            )
        lengths = dict(loss_person=1 if self.sigmoid_person else 2)
        if self.single_label:
            lengths.update(loss_action=self.num_classes)
        for name, length in lengths.items():
            class_weight = getattr(getattr(self, name), 'class_weight', None)
            if class_weight is not None and len(class_weight) != length:
                raise UserError(
                    f'{name} has class_weight={list(class_weight)}; give {length} '
                    'numbers, or None (a child config replaces a loss by _delete_=True).'
                )

    def loss(self, *args: object, **kwargs: object) -> dict[str, Tensor]:
        """The first result of :meth:`loss_and_match`."""
        return self.loss_and_match(*args, **kwargs)[0]

    def loss_and_match(
        self,
        stages: Sequence[StageOutput],
        data_samples: Sequence[ActionDataSample],
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

        Raises:
            UserError: An output or a loss is not finite, or a sample is not what the
                head learns from.
        """
        losses, stages = {}, [*map(in_float32, stages)]
        persons = None
        for sample in data_samples:
            self.check_truth(sample)
        for number, stage in enumerate(stages):
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
        check_finite(
            {k: v.mean().expand(size) for k, v in losses.items()}, data_samples
        )
        return losses, persons

    def check_truth(self, sample: ActionDataSample) -> None:
        """Refuse persons of another kind than the head's."""
        bboxes, labels = sample.gt_instances.bboxes, sample.gt_instances.labels
        if bboxes.dim() != self.box_dims:
            raise UserError(
                f'The boxes of {sample_name(sample)} are {tuple(bboxes.shape)}, but '
                f'{type(self).__name__} learns from {self.box_shape}; change the '
                'dataset or the head.'
            )
        if labels.dim() == 3:
            labels = labels[sample.gt_instances.states == PRESENT]
        if self.single_label and ((labels[:, 1:] > 0).sum(dim=1) != 1).any():
            raise UserError(
                f'A person of {sample_name(sample)} has several actions or none but '
                'the head has single_label=True; correct the annotation, or set '
                'single_label=False and a loss_action with use_sigmoid=True.'
            )

    @torch.no_grad()
    def match(
        self,
        stage: StageOutput,
        data_samples: Sequence[ActionDataSample],
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
        person_logits = stage.person_logits[targets.counted]
        person_labels = targets.person_labels[targets.counted]
        bboxes, scale = stage.bboxes[targets.boxed], targets.box_scale
        action_logits, actions = self.get_actions(stage, targets)
        counts = person_logits.new_tensor((len(bboxes), len(actions)))
        person_weight = action_weight = person_logits.new_zeros(())
        if not self.sigmoid_person:
            person_weight = sum_weights(self.loss_person, person_labels)
        if self.single_label:
            action_weight = sum_weights(self.loss_action, actions)
        totals = torch.stack((*counts, person_weight, action_weight))
        # Divided on each rank by the ranks' mean totals, losses averaged over the ranks
        # are those of one process for all samples together.
        all_reduce(totals, op='mean')
        boxes, acting, person_weight, action_weight = totals
        if self.sigmoid_person:
            person_weight = boxes.clamp(min=1 / get_world_size())
            person_logits = person_margin(person_logits)[:, None]
            person_labels = targets.boxed[targets.counted][:, None].to(bboxes)

        def compare(loss, pred, target, total):
            # The losses' own means over nothing are NaN, or lack a gradient path.
            return loss(pred, target, avg_factor=total) if len(pred) else pred.sum()

        losses = dict(
            loss_person=compare(
                self.loss_person, person_logits, person_labels, person_weight
            ),
            loss_bbox=compare(
                self.loss_bbox, bboxes / scale, targets.bboxes / scale, boxes
            ),
            loss_iou=compare(self.loss_iou, bboxes, targets.bboxes, boxes),
        )
        if self.single_label or not len(actions):
            loss = compare(self.loss_action, action_logits, actions, action_weight)
        else:  # from a mean over persons and actions to a sum over the actions
            num_actions, share = self.num_classes - 1, len(actions) / acting
            loss = self.loss_action(action_logits, actions) * num_actions * share
        return losses | dict(loss_action=loss)

    def get_actions(
        self, stage: StageOutput, targets: Targets
    ) -> tuple[Tensor, Tensor]:
        """Logits and labels for ``loss_action``.

        Both are of the matched queries, (n, A). With ``single_label`` they are of all
        queries that count, (N, A + 1) and (N,), where 0 is background.
        """
        acting = targets.acting
        if not self.single_label:
            return stage.action_logits[acting], targets.actions
        labels = torch.zeros_like(acting, dtype=torch.long)
        labels[acting] = targets.actions.argmax(dim=-1) + 1
        counted = targets.counted.reshape(*labels.shape, -1).any(dim=-1)
        return F.pad(stage.action_logits, (1, 0))[counted], labels[counted]


def sum_weights(loss: object, labels: Tensor) -> Tensor:
    """Sum of the class weights of a softmax loss over class numbers (N,)."""
    class_weight = getattr(loss, 'class_weight', None)
    if class_weight is None:
        return labels.new_tensor(len(labels), dtype=torch.float32)
    return labels.new_tensor(class_weight, dtype=torch.float32)[labels].sum()


def in_float32(stage: StageOutput) -> StageOutput:
    return type(stage)(*(values.float() for values in stage))


def check_finite(
    values: Mapping[str, Tensor], data_samples: Sequence[ActionDataSample]
) -> None:
    """Stop at values (B, …), by name, that are NaN or infinite.

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
    """The name of a sample in messages."""
    name = sample.get('img_key') or sample.get('video_id') or 'a sample without a name'
    return f"'{name}'"
