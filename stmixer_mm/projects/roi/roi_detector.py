"""The two-stage baseline: boxes of persons first, then the actions in each region.

Shapes: B clips, n boxes of persons of a clip, A actions, L levels.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from stmixer_mm.errors import UserError, choose
from stmixer_mm.models.boxes import frame_scale
from stmixer_mm.models.decoder.initial_boxes import build_initial_boxes
from stmixer_mm.models.decoder.query_decoder import build_decoder
from stmixer_mm.models.detectors.base import ClipDetector
from stmixer_mm.models.finite import sample_name
from stmixer_mm.models.parts import Batch
from stmixer_mm.projects.common.feats import fits_stride
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import LAST, StageOutput

# Which field of a sample has the boxes.
SOURCES = {'ground_truth': 'gt_instances', 'proposals': 'proposals'}


@MODELS.register_module()
class RoIDetector(ClipDetector):
    """mmaction2's RoI head on any backbone and neck, with persons from any source.

    ``persons`` says whose regions the RoI head classifies:

    ===================== ============================= ==========================
    persons               in training                   at test
    ===================== ============================= ==========================
    'ground_truth'        those of the ground truth     those of the ground truth
    'proposals'           ground truth, and those of    ``sample.proposals``
                          ``sample.proposals`` if any
    dict(decoder, head)   ground truth, and those that  those that the person
                          the person branch predicts    branch predicts
    ===================== ============================= ==========================

    In training a box has the actions of the person that the assigner of the RoI head
    gives it; boxes without one do not count. Scores at test are of the actions alone,
    so with 'ground_truth' frame mAP is that of perfect boxes.

    The person branch is a decoder and a head of :class:`STMixer` on the same feats,
    trained jointly, and has ``initial_boxes`` if ``persons`` does. It separates persons
    from background, whatever they do: its ``num_classes`` is 2, a single action that
    nobody does, so that the loss of actions vanishes there.

    Args:
        roi_head: mmaction2's ``mmdet.AVARoIHead`` (which it registers there), with the
            ``train_cfg`` that the host's detectors hand to it, whose sampler adds the
            ground truth to the boxes. The dummy class 0 is counted in
            ``bbox_head.num_classes``. The extractor brings all levels to the size of
            the finest, whose stride is its ``featmap_stride``.
        persons: Source of the boxes, see above.
        **kwargs: See :class:`.ClipDetector`.

    Raises:
        UserError: Samples lack the boxes that ``persons`` names.
    """

    num_classes_key = 'model.roi_head.bbox_head.num_classes'
    output_type = StageOutput  # of the person branch

    def __init__(
        self,
        *,
        roi_head: dict,
        persons: Literal['ground_truth', 'proposals'] | dict = 'ground_truth',
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        # The host reads train_cfg by attribute.
        self.roi_head = MODELS.build(ConfigDict(roi_head))
        self.source = self.person_decoder = None
        if isinstance(persons, str):
            self.source = choose('persons', persons, SOURCES)
        else:
            self.build_person_branch(**persons)

    def build_person_branch(
        self, *, decoder: dict, head: dict, initial_boxes: dict | None = None
    ) -> None:
        self.person_decoder = build_decoder(decoder, num_classes=2)
        self.person_boxes = build_initial_boxes(initial_boxes, self.person_decoder)
        self.person_head = MODELS.build({**head, 'num_classes': 2})
        self.person_decoder.check_readers(self, self.person_head, self.person_boxes)

    @property
    def num_classes(self) -> int:
        return self.roi_head.bbox_head.num_classes

    def check_feats(self, feats: Sequence[Tensor], pad_shape: tuple[int, int]) -> None:
        size = feats[0].shape[-2:]
        stride = self.roi_head.bbox_roi_extractor.featmap_stride
        if not fits_stride(size, pad_shape, stride):
            raise UserError(
                f'The RoI extractor has featmap_stride={stride}; set it to that of the '
                f'finest level, {pad_shape[0] / size[0]:g}.'
            )
        if self.person_decoder is not None:
            self.person_decoder.strides_of(feats, pad_shape)

    def _forward(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> list[Tensor]:
        """Action logits (n, A + 1) of each clip."""
        return self.classify(inputs, data_samples)[1]

    def loss(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> dict[str, Tensor]:
        """Loss of the RoI head, and of the person branch under ``person.…``.

        Clips without a person have no loss of actions.
        """
        feats = self.extract_feat(inputs)
        losses, proposals = self.loss_and_propose(inputs, feats, data_samples)
        roi_feats = float_levels(feats)
        # The host's loss is NaN, or fails, where nobody acts.
        labelled_clips = [
            clip
            for clip, sample in enumerate(data_samples)
            if sample.gt_instances.labels[:, 1:].any()
        ]
        if not labelled_clips:
            terms = *roi_feats, *self.roi_head.parameters()
            zero = sum(term.flatten()[:1].sum() * 0 for term in terms)
            return losses | dict(loss_action_cls=zero)
        return losses | self.roi_head.loss(
            tuple(feat[labelled_clips] for feat in roi_feats),
            [InstanceData(bboxes=proposals[clip]) for clip in labelled_clips],
            [data_samples[clip] for clip in labelled_clips],
        )

    def loss_and_propose(
        self,
        inputs: Tensor,
        feats: Sequence[Tensor],
        data_samples: Sequence[ActionDataSample],
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Loss of the person branch, and boxes of each clip besides the ground truth.

        The sampler of the RoI head adds the ground truth itself.
        """
        if self.source:
            nothing = inputs.new_zeros((0, 4), dtype=torch.float32)
            return {}, [
                given_bboxes(sample, self.source)
                if self.source == 'proposals' and 'proposals' in sample
                else nothing
                for sample in data_samples
            ]
        samples = [persons_alone(sample) for sample in data_samples]
        batch = Batch.of(feats, inputs, samples)
        losses, boxes_xyzr = self.person_boxes.loss_and_predict(*batch)
        outputs = self.person_decoder(feats, boxes_xyzr, batch.frames.pad_shape)
        losses |= self.person_head.loss(outputs.stages, samples)[0]
        losses = {f'person.{name}': value for name, value in losses.items()}
        return losses, self.branch_bboxes(outputs.stages, samples)

    @torch.no_grad()
    def find_persons(
        self,
        inputs: Tensor,
        feats: Sequence[Tensor],
        data_samples: Sequence[ActionDataSample],
    ) -> list[Tensor]:
        """The boxes (n, 4) of each clip that the RoI head classifies at test."""
        if self.source:
            return [given_bboxes(sample, self.source) for sample in data_samples]
        frames = Batch.of(feats, inputs, data_samples).frames
        boxes_xyzr = self.person_boxes.predict(feats, frames)
        outputs = self.person_decoder(feats, boxes_xyzr, frames.pad_shape, which=LAST)
        return self.branch_bboxes(outputs.stages, data_samples)

    @torch.no_grad()
    def branch_bboxes(
        self, stages: Sequence[StageOutput], data_samples: Sequence[ActionDataSample]
    ) -> list[Tensor]:
        """The boxes (n, 4) that the person branch predicts for each clip."""
        predictions = self.person_head.predict(stages, data_samples)
        return [
            instances.bboxes * frame_scale(sample.img_shape, instances.bboxes)
            for instances, sample in zip(predictions, data_samples, strict=True)
        ]

    def classify(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes (n, 4) of each clip's persons and their action logits (n, A + 1)."""
        feats = self.extract_feat(inputs)
        roi_feats = float_levels(feats)
        bboxes = self.find_persons(inputs, feats, data_samples)
        counts = [len(clip_bboxes) for clip_bboxes in bboxes]
        if not any(counts):
            nothing = roi_feats[0].new_zeros((0, self.num_classes))
            return bboxes, [nothing] * len(bboxes)
        # The public predict() of the RoI head takes one clip at a time.
        logits = self.roi_head._bbox_forward(
            roi_feats, bbox2roi(bboxes), [sample.metainfo for sample in data_samples]
        )['cls_score']
        return bboxes, list(logits.float().split(counts))

    def predict(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> Sequence[ActionDataSample]:
        """The samples with ``pred_instances``.

        ``bboxes`` (n, 4) are xyxy normalised by the frame without padding, ``scores``
        (n, A + 1) have the host's dummy column 0.
        """
        for sample, bboxes, logits in zip(
            data_samples, *self.classify(inputs, data_samples), strict=True
        ):
            # As it is trained: the dummy class has no part in a softmax.
            multilabel = self.roi_head.bbox_head.multilabel
            actions = logits[:, 1:]
            scores = actions.sigmoid() if multilabel else actions.softmax(dim=-1)
            sample.pred_instances = InstanceData(
                bboxes=bboxes / frame_scale(sample.img_shape, bboxes),
                scores=F.pad(scores, (1, 0)),
            )
        return data_samples


def float_levels(feats: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The levels for the RoI head: float32, as its RoIAlign is."""
    return tuple(feat.float() for feat in feats)


def given_bboxes(sample: ActionDataSample, source: str) -> Tensor:
    """Boxes (n, 4) that a sample brings along, clipped to its frame.

    Raises:
        UserError: It brings none.
    """
    if source not in sample:
        raise UserError(
            f'{sample_name(sample)} has no {source} to take persons from; test '
            'annotated keyframes, or take a KeyframeProposalDataset.'
        )
    bboxes = sample.get(source).bboxes.float()
    return torch.minimum(bboxes.clamp(min=0), frame_scale(sample.img_shape, bboxes))


def persons_alone(sample: ActionDataSample) -> ActionDataSample:
    """A sample with its persons but none of their actions."""
    bboxes = sample.gt_instances.bboxes
    return ActionDataSample(
        metainfo=sample.metainfo,
        gt_instances=InstanceData(
            bboxes=bboxes, labels=bboxes.new_zeros((len(bboxes), 2))
        ),
    )
