"""The two-stage baseline: boxes of persons first, then the actions in each region.

Shapes: B clips, k true boxes of a clip, n boxes of persons of a clip, C channels,
T frames, A actions, L levels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmaction.models.roi_heads import AVARoIHead, SingleRoIExtractor3D
from mmaction.structures import ActionDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor

from stmixer_mm.compat import exact_convolutions
from stmixer_mm.errors import UserError
from stmixer_mm.models.decoder.stage import StageOutput
from stmixer_mm.models.detectors.stmixer import frame_shapes
from stmixer_mm.models.heads.stmixer_head import check_labels, sample_name
from stmixer_mm.models.part_checks import check_parts
from stmixer_mm.models.strides import fits_stride
from stmixer_mm.registry import MODELS

SOURCES = ('ground_truth', 'proposals')


@MODELS.register_module()
class RoIDetector(BaseModel):
    """mmaction2's RoI head on any backbone and neck, with persons from any source.

    ``persons`` says whose regions the RoI head classifies:

    ===================== ============================= ==========================
    persons               in training                   at test
    ===================== ============================= ==========================
    'ground_truth'        true boxes                    true boxes
    'proposals'           true boxes, and those of      ``sample.proposals``
                          ``sample.proposals`` if any
    dict(decoder, head)   true boxes, and those that    those that the person
                          the person branch predicts    branch predicts
    ===================== ============================= ==========================

    In training a box has the actions of the true box that the assigner of the RoI head
    gives it; boxes without one do not count. Scores at test are of the actions alone,
    so with 'ground_truth' frame mAP is that of perfect boxes.

    The person branch is a decoder and a head of :class:`STMixer` on the same maps,
    trained jointly. It tells persons from background, whatever they do: their
    ``num_classes`` is set to 2, a single action that nobody does, so that the loss of
    actions vanishes there.

    Args:
        backbone, neck: As in :class:`STMixer`.
        roi_head: ``mmdet.AVARoIHead`` of mmaction2 (it registers it there), with the
            ``train_cfg`` that the host's detectors hand to it. The dummy class 0 is
            counted in ``bbox_head.num_classes``.
        persons: Source of the boxes, see above.
        levels: Which of the neck's maps the RoI head reads, None for all. The host's
            extractor brings several to the size of the first, whose stride is its
            ``featmap_stride``, and concatenates their channels. What serves only maps
            that nobody reads gets no gradient.
        data_preprocessor: Samples of the loader to clips.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.

    Raises:
        ValueError: Parts that do not fit together, maps that do not fit the RoI head,
            or samples without the boxes that ``persons`` names.
    """

    def __init__(
        self,
        *,
        backbone: dict,
        neck: dict | list | None,
        roi_head: dict,
        persons: str | dict = 'ground_truth',
        levels: Sequence[int] | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = None if neck is None else MODELS.build(neck)
        # The host reads train_cfg by attribute.
        self.roi_head = MODELS.build(ConfigDict(roi_head))
        check_roi_head(self.roi_head)
        self.levels = None if levels is None else tuple(levels)
        if self.levels == ():
            raise UserError(
                'levels=() leaves the RoI head no map; name one at least, or None for '
                'all.'
            )
        self.person_decoder = self.person_head = None
        self.persons = persons
        if not isinstance(persons, str):
            check_person_branch(persons)
            self.persons = 'branch'
            self.person_decoder = MODELS.build({**persons['decoder'], 'num_classes': 2})
            self.person_head = MODELS.build({**persons['head'], 'num_classes': 2})
        elif persons not in SOURCES:
            raise UserError(
                f"persons='{persons}' is unknown; use 'ground_truth', 'proposals' or "
                'dict(decoder=…, head=…).'
            )
        check_parts(
            self,
            dict(backbone=backbone, neck=neck),
            decoder=self.person_decoder,
            check_maps=self.roi_maps,
        )

    @property
    def num_classes(self) -> int:
        """A + 1"""
        return self.roi_head.bbox_head.num_classes

    def forward(
        self,
        inputs: Tensor,
        data_samples: Sequence[ActionDataSample],
        mode: str = 'tensor',
    ) -> list[Tensor] | dict[str, Tensor] | Sequence[ActionDataSample]:
        """
        Args:
            inputs: Normalised and padded clips, (B, 3, T_in, H, W).
            data_samples: One per clip; metainfo ``img_shape`` is (h, w) without
                padding.
            mode: 'tensor', 'loss' or 'predict'.

        Returns:
            Action logits (n, A + 1) of each clip, weighted loss terms (their sum is
            the training loss), or the samples with ``pred_instances``.
        """
        if mode == 'tensor':
            return self.classify(inputs, data_samples)[1]
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        raise UserError(f"mode='{mode}' is unknown; use 'tensor', 'loss' or 'predict'.")

    def extract_feat(self, inputs: Tensor) -> list[Tensor]:
        """Clips (B, 3, T_in, H, W) to the neck's maps (B, C, T, H_l, W_l)."""
        with exact_convolutions(inputs.device.type):
            feats = self.backbone(inputs)
            if self.neck is not None:
                feats = self.neck(feats)
        return [feats] if isinstance(feats, Tensor) else list(feats)

    def loss(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> dict[str, Tensor]:
        """Loss of the RoI head, and of the person branch under ``person.…``.

        Clips without a person have no loss of actions.
        """
        check_labels(data_samples, self.num_classes)
        feats = self.extract_feat(inputs)
        maps = self.roi_maps(feats, tuple(inputs.shape[-2:]))
        losses, proposals = self.loss_and_propose(inputs, feats, data_samples)
        # The host's loss is NaN, or fails, where nobody acts.
        acting = [
            clip
            for clip, sample in enumerate(data_samples)
            if sample.gt_instances.labels[:, 1:].any()
        ]
        if not acting:
            return losses | dict(loss_action_cls=self.no_loss(maps))
        return losses | self.roi_head.loss(
            tuple(feat[acting] for feat in maps),
            [InstanceData(bboxes=proposals[clip]) for clip in acting],
            [data_samples[clip] for clip in acting],
        )

    def loss_and_propose(
        self,
        inputs: Tensor,
        feats: Sequence[Tensor],
        data_samples: Sequence[ActionDataSample],
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Loss of the person branch, and boxes of each clip besides the true ones.

        The sampler of the RoI head adds the true ones itself.
        """
        if self.persons == 'branch':
            shapes = frame_shapes(inputs, data_samples)
            samples = [persons_alone(sample) for sample in data_samples]
            losses, boxes_xyzr = self.person_decoder.initial_boxes.loss_and_predict(
                feats, samples, **shapes
            )
            outputs = self.person_decoder(feats, boxes_xyzr=boxes_xyzr, **shapes)
            losses |= self.person_head.loss(outputs, samples)
            losses = {f'person.{name}': value for name, value in losses.items()}
            return losses, self.branch_bboxes(outputs, samples)
        nothing = inputs.new_zeros((0, 4), dtype=torch.float32)
        if self.persons == 'ground_truth':
            return {}, [nothing] * len(data_samples)
        return {}, [
            given_bboxes(sample, 'proposals') if 'proposals' in sample else nothing
            for sample in data_samples
        ]

    def roi_maps(
        self, feats: Sequence[Tensor], pad_shape: tuple[int, int]
    ) -> tuple[Tensor, ...]:
        """The maps that the RoI head reads; float32, as its RoIAlign is.

        Raises:
            ValueError: They do not fit the RoI head, which would not notice.
        """
        levels = tuple(range(len(feats))) if self.levels is None else self.levels
        if not all(0 <= level < len(feats) for level in levels):
            raise UserError(
                f'The neck yields {len(feats)} maps but levels={levels}; name levels '
                f'from 0 to {len(feats) - 1}.'
            )
        maps = tuple(feats[level].float() for level in levels)
        extractor = self.roi_head.bbox_roi_extractor
        size, stride = tuple(maps[0].shape[-2:]), extractor.featmap_stride
        if not fits_stride(size, pad_shape, stride):
            raise UserError(
                f'Map {levels[0]} has {size[0]}x{size[1]} cells for a clip padded '
                f'to {pad_shape[0]}x{pad_shape[1]} but the RoI extractor has '
                f'featmap_stride={stride}; set it to {pad_shape[0] / size[0]:g}, or '
                'choose other levels.'
            )
        channels = sum(feat.size(1) for feat in maps) * (1 + extractor.with_global)
        expected = self.roi_head.bbox_head.in_channels
        if not self.roi_head.with_shared_head and channels != expected:
            raise UserError(
                f'The RoI extractor yields {channels} channels of levels={levels} '
                f'but the bbox_head has in_channels={expected}; set roi_head.bbox_head.'
                f'in_channels={channels}.'
            )
        return maps

    def no_loss(self, maps: Sequence[Tensor]) -> Tensor:
        """Zero, with a gradient path to what the RoI head's loss has one to."""
        return sum(
            term.flatten()[:1].sum() * 0
            for term in (*maps, *self.roi_head.parameters())
        )

    @torch.no_grad()
    def find_persons(
        self,
        inputs: Tensor,
        feats: Sequence[Tensor],
        data_samples: Sequence[ActionDataSample],
    ) -> list[Tensor]:
        """The boxes (n, 4) of each clip that the RoI head classifies at test."""
        if self.persons == 'ground_truth':
            return [given_bboxes(sample, 'gt_instances') for sample in data_samples]
        if self.persons == 'proposals':
            return [given_bboxes(sample, 'proposals') for sample in data_samples]
        outputs = self.person_decoder(feats, **frame_shapes(inputs, data_samples))
        return self.branch_bboxes(outputs, data_samples)

    @torch.no_grad()
    def branch_bboxes(
        self,
        outputs: Sequence[StageOutput],
        data_samples: Sequence[ActionDataSample],
    ) -> list[Tensor]:
        """The boxes (n, 4) that the person branch predicts for each clip."""
        clips = [
            ActionDataSample(metainfo=dict(img_shape=sample.img_shape))
            for sample in data_samples
        ]
        return [
            clip.pred_instances.bboxes * frame_scale(clip.pred_instances.bboxes, clip)
            for clip in self.person_head.predict(outputs, clips)
        ]

    def classify(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes (n, 4) of each clip's persons and their action logits (n, A + 1)."""
        feats = self.extract_feat(inputs)
        maps = self.roi_maps(feats, tuple(inputs.shape[-2:]))
        bboxes = self.find_persons(inputs, feats, data_samples)
        counts = [len(one) for one in bboxes]
        if not any(counts):
            return bboxes, [maps[0].new_zeros((0, self.num_classes)) for _ in bboxes]
        # The public predict() of the RoI head takes one clip at a time.
        logits = self.roi_head._bbox_forward(
            maps, bbox2roi(bboxes), [sample.metainfo for sample in data_samples]
        )['cls_score']
        return bboxes, list(logits.float().split(counts))

    def predict(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> Sequence[ActionDataSample]:
        """The samples with ``pred_instances``.

        ``bboxes`` (n, 4) are xyxy normalised by the true frame, ``scores`` (n, A + 1)
        have the host's dummy column 0.
        """
        for sample, bboxes, logits in zip(
            data_samples, *self.classify(inputs, data_samples), strict=True
        ):
            if self.roi_head.bbox_head.multilabel:
                scores = logits[:, 1:].sigmoid()
            else:
                # As it is trained: the dummy class has no part in the softmax.
                scores = logits[:, 1:].softmax(dim=-1)
            sample.pred_instances = InstanceData(
                bboxes=bboxes / frame_scale(bboxes, sample),
                scores=F.pad(scores, (1, 0)),
            )
        return data_samples


def check_roi_head(roi_head: object) -> None:
    """Refuse what would fail, or go wrong unnoticed, in the first step."""
    if not isinstance(roi_head, AVARoIHead):
        raise UserError(
            f'roi_head is a {type(roi_head).__name__}, whose regions have no time; use '
            "type='mmdet.AVARoIHead'."
        )
    extractor = roi_head.bbox_roi_extractor
    if not isinstance(extractor, SingleRoIExtractor3D):
        raise UserError(
            f'bbox_roi_extractor is a {type(extractor).__name__}, which takes no maps '
            "with time; use type='mmdet.SingleRoIExtractor3D'."
        )
    if not roi_head.bbox_head.background_class:
        raise UserError(
            'bbox_head.background_class=False makes an action of the dummy class 0; '
            'set it to True.'
        )
    if roi_head.bbox_sampler is None:
        raise UserError(
            'roi_head has no train_cfg; give it one with assigner, sampler and '
            "pos_weight, as the host's detectors have in train_cfg.rcnn."
        )
    if not roi_head.bbox_sampler.add_gt_as_proposals:
        raise UserError(
            'The sampler of roi_head has add_gt_as_proposals=False, with which a batch '
            'may have no box to learn from; set it to True.'
        )


def check_person_branch(parts: dict) -> None:
    if set(parts) != {'decoder', 'head'}:
        raise UserError(
            f'persons has the keys {sorted(parts)}; give it decoder and head, and '
            'nothing else.'
        )


def given_bboxes(sample: ActionDataSample, source: str) -> Tensor:
    """Boxes (n, 4) that a sample brings along, clipped to its frame.

    Raises:
        ValueError: It brings none.
    """
    if source not in sample:
        remedy = {
            'gt_instances': 'test annotated keyframes',
            'proposals': 'give the dataset a proposal_file',
        }[source]
        raise UserError(
            f'{sample_name(sample)} has no {source} to take persons from; {remedy}, or '
            'choose other persons for the RoIDetector.'
        )
    bboxes = sample.get(source).bboxes.float()
    return torch.minimum(bboxes.clamp(min=0), frame_scale(bboxes, sample))


def frame_scale(bboxes: Tensor, sample: ActionDataSample) -> Tensor:
    """(w, h, w, h) of the true frame."""
    height, width = sample.metainfo['img_shape']
    return bboxes.new_tensor((width, height, width, height))


def persons_alone(sample: ActionDataSample) -> ActionDataSample:
    """A sample with its true boxes but none of their actions."""
    bboxes = sample.gt_instances.bboxes
    return ActionDataSample(
        metainfo=sample.metainfo,
        gt_instances=InstanceData(
            bboxes=bboxes, labels=bboxes.new_zeros((len(bboxes), 2))
        ),
    )
