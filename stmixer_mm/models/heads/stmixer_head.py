"""The head: matching, targets, losses and predictions of set prediction.

Shapes: B clips, Q queries, A actions, n matched pairs. It has no parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import compress
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
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
    match_rest,
    person_margin,
    score_persons,
)
from stmixer_mm.registry import MODELS, TASK_UTILS, build_hosted
from stmixer_mm.structures import ABSENT, PRESENT, UNKNOWN

# Scores of a query, from its action scores (n, A) and its person score (n, 1).
SCORE_MODES = {
    'action': lambda actions, person: actions,
    'product': lambda actions, person: actions * person,
}
# What a sigmoid person loss learns for matched queries, from both boxes (n, 4).
PERSON_TARGETS = {
    'label': lambda bboxes, gt_bboxes: 1.0,
    'iou': lambda bboxes, gt_bboxes: bbox_overlaps(bboxes, gt_bboxes, is_aligned=True),
}


class Targets(NamedTuple):
    """What the queries of a batch should say, from one stage's matching.

    [K]: with tubelets, there is a value for each of the K frames.
    """

    persons: Tensor  # (B, Q): whom they stand for, see :func:`make_targets`
    person_labels: Tensor  # (B, Q, [K]): PERSON or BACKGROUND
    counted: Tensor  # (B, Q, [K]) bool: where the person label counts
    boxed: Tensor  # (B, Q, [K]) bool: where the matched persons have their m boxes
    bboxes: Tensor  # (m, 4): pixel xyxy, in the order of ``boxed``
    acting: Tensor  # bool: the matched queries (B, Q), or ``boxed``
    actions: Tensor  # (n, A): multi-hot, in the order of ``acting``
    box_scale: Tensor  # (m, 4): w, h, w, h of the frame without padding


class Detections(NamedTuple):
    """What all queries say, of one clip or [B] clips; of tubelets, in [K] frames."""

    person_scores: Tensor  # ([B], Q, [K])
    action_scores: Tensor  # ([B], Q, A), or ([B], Q, K, A)
    bboxes: Tensor  # ([B], Q, [K], 4): xyxy, normalised by the frame, within it


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
            matched queries. Scores are the same with both.
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
        person_target: What a sigmoid ``loss_person`` learns for matched queries:
            'label' for 1, 'iou' for the IoU of their box with the person's, for
            ``mmdet.QualityFocalLoss`` and ``mmdet.VarifocalLoss``.
        single_label: A person has exactly one action. ``loss_action`` is then a
            softmax over the A actions and background, whose logit is 0 and whose
            weight is the first of its ``class_weight``; queries without a person learn
            background. Its ``loss_weight`` is that of a person.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.

    Raises:
        UserError: An argument is out of range, or a part would go wrong unnoticed.
    """

    output_type: type = StageOutput  # what it reads
    box_dims, box_shape = 2, '(k, 4), boxes in one frame'

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
        single_label: bool = False,
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
        self.single_label = single_label
        self.check_parts(person_target)

    def check_parts(self, person_target: str) -> None:
        """Refuse parts that would train something else unnoticed."""
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
        wanted = not self.single_label
        if getattr(self.loss_action, 'use_sigmoid', wanted) != wanted:
            raise UserError(
                f'loss_action={type(self.loss_action).__name__} uses a '
                f'{"softmax" if wanted else "sigmoid"}, but a person performs '
                f'{"any number of actions" if wanted else "exactly one action"}; set '
                f'use_sigmoid={wanted}, or single_label={wanted}.'
            )
        class_weight = getattr(self.loss_action, 'class_weight', None)
        if (
            self.single_label
            and class_weight is not None
            and len(class_weight) != self.num_classes
        ):
            raise UserError(
                f'loss_action has {len(class_weight)} numbers in class_weight for '
                f'{self.num_classes - 1} actions and, before them, background; give '
                f'{self.num_classes}, or None.'
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
            UserError: An output or a loss is not finite, or a sample is not what the
                head learns from.
        """
        return self.loss_and_match(outputs, data_samples)[0]

    def loss_and_match(
        self,
        outputs: Sequence[StageOutput],
        data_samples: Sequence[ActionDataSample],
        held: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """What :meth:`loss` returns, and whom the last stage's queries stand for.

        The second is (B, Q), see :func:`make_targets`. For the last N queries it is
        known before: ``held`` (B, N), see :func:`match_rest`.
        """
        for sample in data_samples:
            self.check_truth(sample)
        losses, targets = self.loss_by_stages(
            outputs,
            data_samples,
            lambda output: self.get_targets(output, data_samples, held),
        )
        return losses, targets.persons

    def check_truth(self, sample: ActionDataSample) -> None:
        """Refuse persons of a kind that the head does not find."""
        bboxes, labels = sample.gt_instances.bboxes, sample.gt_instances.labels
        if bboxes.dim() != self.box_dims:
            raise UserError(
                f'The boxes of {sample_name(sample)} are {tuple(bboxes.shape)}, but '
                f'{type(self).__name__} learns from {self.box_shape}; change the '
                'dataset or the head.'
            )
        if labels.dim() == 3:
            labels = labels[sample.gt_instances.states == PRESENT]
        numbers = (labels[:, 1:] > 0).sum(dim=1)
        if self.single_label and (numbers != 1).any():
            raise UserError(
                f'A person of {sample_name(sample)} has {numbers[numbers != 1][0]} '
                'actions but the head has single_label=True; correct the annotation, or '
                'set single_label=False and a loss_action with use_sigmoid=True.'
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
        return self.loss_by_stages(outputs, data_samples, lambda _: targets, 'dn.')[0]

    def loss_by_stages(
        self,
        outputs: Sequence[StageOutput],
        data_samples: Sequence[ActionDataSample],
        find_targets: Callable[[StageOutput], Targets],
        prefix: str = '',
    ) -> tuple[dict[str, Tensor], Targets]:
        """Terms of all stages, ``prefix`` before each name, and the last targets."""
        losses = {}
        for stage, output in enumerate(outputs):
            of_stage = f'd{stage}.' if stage < len(outputs) - 1 else ''
            output = in_float32(output)
            check_finite(
                {f'{name} of stage {stage}': v for name, v in output._asdict().items()},
                data_samples,
            )
            targets = find_targets(output)
            terms = self.loss_by_stage(output, targets)
            for name, value in terms.items():
                losses[of_stage + prefix + name] = value
        clips = len(data_samples)
        check_finite(
            {name: value.mean().expand(clips, 1) for name, value in losses.items()},
            data_samples,
        )
        return losses, targets

    def loss_by_stage(self, output: StageOutput, targets: Targets) -> dict[str, Tensor]:
        """The four terms of one stage."""
        person_logits = output.person_logits[targets.counted]
        person_labels = targets.person_labels[targets.counted]
        bboxes = output.bboxes[targets.boxed]
        action_logits, actions = self.get_actions(output, targets)
        num_boxes, num_acting = len(targets.bboxes), len(targets.actions)
        person_weight = action_weight = person_logits.new_zeros(())
        if not self.sigmoid_person:
            person_weight = sum_weights(self.loss_person, person_labels)
        if self.single_label:
            action_weight = sum_weights(self.loss_action, actions)

        # Divided on each rank by the ranks' mean totals, losses averaged over the ranks
        # are those of one process for all samples together.
        counts = person_logits.new_tensor((num_boxes, num_acting))
        totals = torch.stack((*counts, person_weight, action_weight))
        all_reduce(totals, op='mean')
        *counts, person_weight, action_weight = totals
        avg_boxes, avg_acting = (
            count.clamp(min=1 / get_world_size()) for count in counts
        )

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
                avg_factor=avg_boxes,
            )
        elif len(person_logits):
            losses['loss_person'] = self.loss_person(
                person_logits, person_labels, avg_factor=person_weight
            )
        if num_boxes:
            losses['loss_bbox'] = self.loss_bbox(
                bboxes / targets.box_scale,
                targets.bboxes / targets.box_scale,
                avg_factor=avg_boxes,
            )
            losses['loss_iou'] = self.loss_iou(
                bboxes, targets.bboxes, avg_factor=avg_boxes
            )
        if len(actions) and self.single_label:
            losses['loss_action'] = self.loss_action(
                action_logits, actions, avg_factor=action_weight
            )
        elif len(actions):
            action_loss = self.loss_action(action_logits, actions)
            # From a mean over persons and actions to a sum over the actions.
            num_actions = self.num_classes - 1
            share = num_acting / avg_acting
            losses['loss_action'] = action_loss * num_actions * share
        return losses

    def get_actions(
        self, output: StageOutput, targets: Targets
    ) -> tuple[Tensor, Tensor]:
        """Logits and labels for ``loss_action``.

        Both are of the matched queries, (n, A). With ``single_label`` they are of all
        queries that count, (N, A + 1) and (N,), where 0 is background.
        """
        acting = targets.acting
        if not self.single_label:
            return output.action_logits[acting], targets.actions
        labels = torch.zeros_like(acting, dtype=torch.long)
        labels[acting] = targets.actions.argmax(dim=-1) + 1
        counted = targets.counted.reshape(*labels.shape, -1).any(dim=-1)
        return F.pad(output.action_logits, (1, 0))[counted], labels[counted]

    @torch.no_grad()
    def get_presence(self, bboxes: Tensor, targets: Targets) -> Tensor:
        """How much each counted query should be a person, in [0, 1]."""
        presence = torch.zeros_like(targets.boxed, dtype=bboxes.dtype)
        presence[targets.boxed] = self.measure_presence(bboxes, targets.bboxes)
        return presence[targets.counted]

    @torch.no_grad()
    def get_targets(
        self,
        output: StageOutput,
        data_samples: Sequence[ActionDataSample],
        held: Tensor | None = None,
    ) -> Targets:
        """Match the queries of each clip to its persons."""
        assigned = []
        for clip, sample in enumerate(data_samples):
            match = match_clip
            if held is not None:
                match = partial(match_rest, held=held[clip])
            assigned.append(
                match(
                    output.person_logits[clip],
                    output.bboxes[clip],
                    sample.gt_instances,
                    sample.metainfo,
                    assigner=self.assigner,
                    sampler=self.sampler,
                )
            )
        return make_targets(torch.stack(assigned), data_samples)

    def predict(
        self,
        outputs: Sequence[StageOutput],
        data_samples: Sequence[ActionDataSample],
        of_queries: Mapping[str, Tensor] | None = None,
    ) -> list[InstanceData]:
        """Predictions of the last stage for each clip, of which n queries are kept.

        ``bboxes`` (n, 4) are xyxy normalised by the frame without padding, ``scores``
        (n, num_classes) have the host's dummy column 0, ``person_scores`` (n,). The n
        kept values of ``of_queries``, further fields (B, Q, …), are there too.
        """
        clip_len = data_samples[0].metainfo.get('clip_len')
        last, further = self.read(outputs[-1], clip_len), of_queries or {}
        return [
            self.choose(
                self.score(type(last)(*output), sample.metainfo['img_shape']),
                {name: values[clip] for name, values in further.items()},
            )
            for clip, (sample, *output) in enumerate(
                zip(data_samples, *last, strict=True)
            )
        ]

    def read(self, output: StageOutput, clip_len: int | None) -> StageOutput:
        """What a stage says about a clip, float32."""
        return in_float32(output)

    def score(self, output: StageOutput, img_shape: tuple[int, int]) -> Detections:
        """Scores and boxes, of one clip or of several, whose frames are (h, w)."""
        person_scores = score_persons(output.person_logits)
        logits = output.action_logits
        actions = logits.sigmoid()
        if self.single_label:
            actions = F.pad(logits, (1, 0)).softmax(dim=-1)[..., 1:]
        of_query = self.score_queries(person_scores)
        of_query = of_query[(..., *[None] * (logits.dim() - of_query.dim()))]
        scale = frame_scale(img_shape, output.bboxes)
        return Detections(
            person_scores=person_scores,
            action_scores=self.score_actions(actions, of_query),
            bboxes=torch.minimum(output.bboxes.clamp(min=0), scale - 1) / scale,
        )

    def choose(
        self, found: Detections, of_queries: Mapping[str, Tensor]
    ) -> InstanceData:
        """The queries of a clip that are kept."""
        query_scores = self.score_queries(found.person_scores)
        keep = (query_scores >= self.score_thr).nonzero().squeeze(1)
        if len(keep) == 0:
            number = min(self.fallback_topk, len(query_scores))
            keep = query_scores.topk(number).indices
        return InstanceData(
            bboxes=found.bboxes[keep],
            scores=F.pad(found.action_scores[keep], (1, 0)),
            person_scores=found.person_scores[keep],
            **{name: values[keep] for name, values in of_queries.items()},
        )

    def score_queries(self, person_scores: Tensor) -> Tensor:
        """How likely each query is a person, (..., Q), from its person scores."""
        return person_scores


def in_float32(output: StageOutput) -> StageOutput:
    return type(output)(*(values.float() for values in output))


def sum_weights(loss: object, labels: Tensor) -> Tensor:
    """Sum of the class weights of a softmax loss over class numbers (N,)."""
    class_weight = getattr(loss, 'class_weight', None)
    if class_weight is None:
        return torch.ones_like(labels, dtype=torch.float32).sum()
    weights = torch.tensor(class_weight, dtype=torch.float32, device=labels.device)
    return weights[labels].sum()


def make_targets(assigned: Tensor, data_samples: Sequence[ActionDataSample]) -> Targets:
    """What queries should say, given the persons that they stand for.

    Args:
        assigned: i + 1 for the i-th person of the clip, 0 for none, -1 for a query
            that counts nowhere, (B, Q).
        data_samples: The ground truth; persons with ``states`` (k, K) are tubelets,
            and may have ``labels`` (k, K, A + 1).
    """
    states, bboxes, actions, scales = [], [], [], []
    for sample, persons in zip(data_samples, assigned, strict=True):
        gt_instances = sample.gt_instances
        pairs = persons[persons > 0] - 1
        states.append(query_states(persons, gt_instances))
        there = states[-1][persons > 0] == PRESENT
        gt_bboxes = gt_instances.bboxes.to(pairs.device, torch.float32)[pairs]
        bboxes.append(gt_bboxes[there])
        labels = gt_instances.labels.to(pairs.device)[pairs]
        by_frame = labels.dim() == 3
        actions.append((labels[there] if by_frame else labels)[:, 1:].float())
        scale = frame_scale(sample.metainfo['img_shape'], bboxes[-1])
        scales.append(scale.expand(len(bboxes[-1]), 4))
    states = torch.stack(states)
    boxed = states == PRESENT
    return Targets(
        persons=assigned,
        person_labels=torch.where(boxed, PERSON, BACKGROUND),
        counted=states != UNKNOWN,
        boxed=boxed,
        bboxes=torch.cat(bboxes),
        acting=boxed if by_frame else assigned > 0,
        actions=torch.cat(actions),
        box_scale=torch.cat(scales),
    )


def query_states(persons: Tensor, gt_instances: InstanceData) -> Tensor:
    """States of the person that each query of a clip stands for.

    A query for nobody is absent, but unknown in frames where no state is known.

    Args:
        persons: See ``assigned`` of :func:`make_targets`, (Q,).
        gt_instances: Persons, present in the one frame or with ``states`` (k, K).

    Returns:
        (Q,), of tubelets (Q, K).
    """
    states = persons.new_full((len(gt_instances.bboxes),), PRESENT)
    if 'states' in gt_instances:
        states = gt_instances.states.to(persons)
    of_nobody = states.new_full(states.shape[1:], ABSENT)
    if len(states):
        of_nobody[(states == UNKNOWN).all(dim=0)] = UNKNOWN
    table = torch.cat((of_nobody[None], states))
    found = table[persons.clamp(min=0)]
    found[persons < 0] = UNKNOWN
    return found


def check_finite(
    values: Mapping[str, Tensor], data_samples: Sequence[ActionDataSample]
) -> None:
    """Stop at values that are NaN or infinite.

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
    """What a sample is called in messages."""
    name = sample.get('img_key') or sample.get('video_id') or 'a sample without a name'
    return f"'{name}'"
