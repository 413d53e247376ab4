"""Queries that start from the proposals of an mmdet dense head.

Shapes: B clips, Q queries, T frames, L levels, n proposals of a clip.
"""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from math import ceil
from operator import itemgetter

import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from stmixer_mm.errors import UserError
from stmixer_mm.models.boxes import xyxy_to_xyzr
from stmixer_mm.models.decoder.initial_boxes import (
    FrameShapes,
    InitialBoxes,
    frame_bboxes,
)
from stmixer_mm.models.strides import derive_strides
from stmixer_mm.projects.common.feats import fits_stride, keyframes
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import StageOutput


@MODELS.register_module()
class ProposalBoxes(InitialBoxes):
    """The best proposals of a dense head on the keyframe of the feats.

    The head is trained along with the rest, on persons as its only class; its losses
    are named ``proposals.…``, and boxes carry no gradient. Where a clip has fewer
    than Q proposals, the other queries start from the whole frame.

    Args:
        dense_head: Config of an mmdet dense head that has priors, such as
            ``mmdet.RPNHead``, ``mmdet.FCOSHead`` and ``mmdet.ATSSHead``, as in mmdet's
            own configs: with ``train_cfg``, and the strides of the levels. Channels and
            classes are set here; ``test_cfg`` has defaults.
        **kwargs: See :class:`InitialBoxes`.

    Raises:
        UserError: The head has no priors, or other strides than the levels.
    """

    output_type = StageOutput  # it learns from persons of keyframes, not tubelets

    def __init__(self, *, dense_head: dict, **kwargs) -> None:
        super().__init__(**kwargs)
        test_cfg = dict(
            nms_pre=1000,
            min_bbox_size=0,
            score_thr=0.0,  # The best ones serve, whatever their scores.
            nms=dict(type='nms', iou_threshold=0.7),
            max_per_img=self.num_queries,
        )
        derived = dict(
            num_classes=1,
            in_channels=self.embed_dims,
            test_cfg={**test_cfg, **dense_head.get('test_cfg', {})},
        )
        if isinstance(levels := dense_head.get('in_channels'), Sequence):
            derived['in_channels'] = [self.embed_dims] * len(levels)
        # The host reads nested settings by attribute.
        settings = {**dense_head, **taken(dense_head, derived)}
        self.dense_head = MODELS.build(ConfigDict(settings))
        # (w, h) of a cell of each level.
        self.strides = strides_of(self.dense_head)

    @torch.no_grad()
    def predict(self, feats: Sequence[Tensor], frames: FrameShapes) -> Tensor:
        # The head would not notice other strides, and propose boxes elsewhere.
        if len(feats) != len(self.strides) or not all(
            fits_stride(feat.shape[-2:], frames.pad_shape, side)
            for feat, sides in zip(feats, self.strides, strict=True)
            for side in sides
        ):
            raise UserError(
                f'The dense head has strides {self.strides}; set them to those of the '
                f'levels, {derive_strides(feats, frames.pad_shape)}.'
            )
        # In training some of mmdet's heads yield something other than boxes.
        training = self.dense_head.training
        self.dense_head.eval()
        outputs = self.run(feats)
        self.dense_head.train(training)
        return self.read(outputs, frames.img_shapes)

    def loss_and_predict(
        self, feats: Sequence[Tensor], data_samples: Sequence, frames: FrameShapes
    ) -> tuple[dict[str, Tensor], Tensor]:
        boxes_xyzr = self.predict(feats, frames)
        losses = self.dense_head.loss_by_feat(
            *self.run(feats),
            [persons_alone(sample.gt_instances, feats[0]) for sample in data_samples],
            [
                make_meta(shape, frames.pad_shape)
                for shape in frames.img_shapes.tolist()
            ],
        )
        summed = {
            f'proposals.{name}': value if isinstance(value, Tensor) else sum(value)
            for name, value in losses.items()
        }
        return summed, boxes_xyzr

    def run(self, feats: Sequence[Tensor]) -> list[list[Tensor]]:
        """Outputs of the head at the keyframe, each L tensors (B, …, H_l, W_l).

        In float32, under autocast too: anchors take the type of the scores. Channels
        beyond those of the queries, as of the neck ActionMaps, are left out.
        """
        feats = keyframes([feat[:, : self.embed_dims] for feat in feats])
        feats = [feat.contiguous() for feat in feats]  # as from a neck
        return each_tensor(Tensor.float, self.dense_head(feats))

    def read(self, outputs: Sequence[Sequence[Tensor]], img_shapes: Tensor) -> Tensor:
        """Boxes of what :meth:`run` returned, (B, Q, 4) xyzr."""
        bboxes = []
        for clip, shape in enumerate(img_shapes.tolist()):
            # Cells in the padding would propose boxes at the border of the frame.
            sizes = [
                (slice(ceil(shape[0] / high)), slice(ceil(shape[1] / wide)))
                for wide, high in self.strides
            ]
            within = [
                [
                    each_tensor(itemgetter((slice(clip, clip + 1), ..., *size)), level)
                    for level, size in zip(levels, sizes, strict=True)
                ]
                for levels in outputs
            ]
            (proposals,) = self.dense_head.predict_by_feat(
                *within, batch_img_metas=[make_meta(shape, shape)]
            )
            frame = frame_bboxes(img_shapes[clip])
            bboxes.append(
                best_bboxes(proposals.bboxes, proposals.scores, frame, self.num_queries)
            )
        return xyxy_to_xyzr(torch.stack(bboxes))


def taken(dense_head: Mapping, settings: dict[str, object]) -> dict[str, object]:
    """Settings that a class takes, or that a base takes by ``kwargs``."""
    kind = dense_head['type']
    part = MODELS.get(kind) if isinstance(kind, str) else kind
    bases = [base.__init__ for base in part.__mro__ if '__init__' in vars(base)]
    names = {
        name for constructor in bases for name in signature(constructor).parameters
    }
    return {name: value for name, value in settings.items() if name in names}


def strides_of(dense_head: nn.Module) -> Sequence[tuple[int, int]]:
    """(w, h) of a cell of each level."""
    for name in 'prior_generator', 'square_anchor_generator':
        if hasattr(dense_head, name):
            return getattr(dense_head, name).strides
    raise UserError(
        f'{type(dense_head).__name__} has no priors to propose boxes from; take a '
        'dense head such as mmdet.RPNHead.'
    )


def each_tensor(function: Callable[[Tensor], Tensor], outputs: object) -> object:
    """Nested lists of the results for tensors."""
    if isinstance(outputs, Tensor):
        return function(outputs)
    return [each_tensor(function, output) for output in outputs]


def persons_alone(persons: InstanceData, like: Tensor) -> InstanceData:
    """The persons of a clip as instances of class 0, on the device of a tensor."""
    bboxes = persons.bboxes.to(like.device, torch.float32)
    return InstanceData(bboxes=bboxes, labels=bboxes.new_zeros(len(bboxes)).long())


def make_meta(img_shape: Sequence[int], pad_shape: Sequence[int]) -> dict:
    """Image meta data as mmdet's heads read them.

    Args:
        img_shape: (h, w) without padding.
        pad_shape: (h, w) of the batch.
    """
    return dict(
        img_shape=tuple(img_shape),
        # Of the image, not of the batch: anchors in the padding are not trained.
        pad_shape=tuple(img_shape),
        batch_input_shape=tuple(pad_shape),
        scale_factor=(1.0, 1.0),
    )


def best_bboxes(
    bboxes: Tensor, scores: Tensor, frame: Tensor, num_boxes: int
) -> Tensor:
    """The best proposals, then the whole frame as often as it takes.

    Args:
        bboxes: Pixel corners, (n, 4).
        scores: (n,)
        frame: Pixel corners of the frame, (4,).
        num_boxes: Q.

    Returns:
        Pixel corners within the frame, at least a pixel wide and high, (Q, 4).
    """
    best = scores.topk(min(num_boxes, len(scores))).indices
    top_left, bottom_right = bboxes[best].float().split(2, dim=-1)
    top_left = torch.minimum(top_left.clamp(min=0), frame[2:] - 1)
    bottom_right = torch.minimum(torch.maximum(bottom_right, top_left + 1), frame[2:])
    proposals = torch.cat((top_left, bottom_right), dim=-1)
    return torch.cat((proposals, frame.expand(num_boxes - len(proposals), 4)))
