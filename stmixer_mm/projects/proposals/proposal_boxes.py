"""Queries that start from the proposals of an mmdet dense head.

Shapes: B clips, Q queries, C channels, T frames, L levels, n proposals of a clip,
k persons of a clip.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import pairwise
from math import ceil, gcd

import torch
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.models.boxes import xyxy_to_xyzr
from stmixer_mm.models.decoder.initial_boxes import (
    FrameShapes,
    InitialBoxes,
    frame_bboxes,
)
from stmixer_mm.models.folding import keyframes
from stmixer_mm.models.strides import derive_strides, fits_stride
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import StageOutput

_ANCHORS = dict(type='AnchorGenerator', strides=(4, 8, 16, 32))
_ASSIGNING = dict(allowed_border=-1, pos_weight=-1)
# Training settings of mmdet's own configs, and strides of the usual four levels.
HEAD_DEFAULTS = {
    'RPNHead': dict(
        anchor_generator=dict(_ANCHORS, scales=[8], ratios=[0.5, 1.0, 2.0]),
        loss_bbox=dict(type='L1Loss'),
        train_cfg=dict(
            _ASSIGNING,
            assigner=dict(
                type='MaxIoUAssigner',
                pos_iou_thr=0.7,
                neg_iou_thr=0.3,
                min_pos_iou=0.3,
            ),
            sampler=dict(
                type='RandomSampler',
                num=256,
                pos_fraction=0.5,
                add_gt_as_proposals=False,
            ),
        ),
    ),
    'FCOSHead': dict(strides=_ANCHORS['strides']),
    'ATSSHead': dict(
        # Persons are tall: square anchors alone leave many of them without a positive.
        anchor_generator=dict(
            _ANCHORS, ratios=[1.0, 2.0], octave_base_scale=8, scales_per_octave=1
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=(0.1, 0.1, 0.2, 0.2)),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        train_cfg=dict(_ASSIGNING, assigner=dict(type='ATSSAssigner', topk=9)),
    ),
}


@MODELS.register_module()
class ProposalBoxes(InitialBoxes):
    """The best proposals of a dense head on the keyframe of the feats.

    The head is trained along with the rest, on persons as its only class; its losses
    are named ``proposals.…``, and boxes carry no gradient. Where a clip has fewer
    than Q proposals, the other queries start from the whole frame.

    Args:
        dense_head: Config of an mmdet dense head that has priors, with the strides of
            the levels as that head names them. ``mmdet.RPNHead``, ``mmdet.FCOSHead``
            and ``mmdet.ATSSHead`` need no more than that; nested settings change their
            defaults one by one, as in a child config. Other heads may need a
            ``train_cfg``.
        keyframe: Which frame of the feats it is, see :func:`.place_keyframe`.
        **kwargs: See :class:`InitialBoxes`.

    Raises:
        UserError: A head that gives no person proposals, or whose strides are not those
            of the levels.
    """

    output_type = StageOutput  # it learns from persons of keyframes, not tubelets

    def __init__(
        self, *, dense_head: dict, keyframe: int | None = None, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.keyframe = keyframe
        settings = complete_head(
            dense_head, num_queries=self.num_queries, embed_dims=self.embed_dims
        )
        self.dense_head = head = MODELS.build(settings)
        if settings.num_classes != 1:
            raise UserError(
                f'The dense head has num_classes={settings.num_classes}, but proposals '
                'are of one class, person; leave num_classes out.'
            )
        if isinstance(head, AnchorHead) and not head.train_cfg:
            raise UserError(
                f'The dense head {type(head).__name__} has no train_cfg to assign '
                'persons to its anchors by; give it that of its config in mmdet.'
            )
        # (w, h) of a cell of each level.
        self.strides = head.prior_generator.strides

    @torch.no_grad()
    def predict(self, feats: Sequence[Tensor], frames: FrameShapes) -> Tensor:
        # The head would not notice other strides, and propose boxes elsewhere.
        if len(feats) != len(self.strides) or not all(
            fits_stride(feat.shape[-2:], frames.pad_shape, side)
            for feat, sides in zip(feats, self.strides, strict=True)
            for side in sides
        ):
            raise UserError(
                f'The dense head has strides {self.strides} but the levels have '
                f'{derive_strides(feats, frames.pad_shape)}; set its strides (of its '
                'anchor_generator, if it has one) to these.'
            )
        # In training some of mmdet's heads yield something other than boxes.
        training = self.dense_head.training
        self.dense_head.eval()
        outputs = self.run(keyframes(feats, self.keyframe))
        self.dense_head.train(training)
        return self.read(outputs, frames.img_shapes)

    def loss_and_predict(
        self, feats: Sequence[Tensor], data_samples: Sequence, frames: FrameShapes
    ) -> tuple[dict[str, Tensor], Tensor]:
        boxes_xyzr = self.predict(feats, frames)
        img_shapes, pad_shape = frames
        losses = self.dense_head.loss_by_feat(
            *self.run(keyframes(feats, self.keyframe)),
            [ground_truth(sample, feats[0]) for sample in data_samples],
            [make_meta(shape, pad_shape) for shape in img_shapes.tolist()],
        )
        return sum_levels(losses), boxes_xyzr

    def run(self, feats: Sequence[Tensor]) -> list[list[Tensor]]:
        """What the head yields, each a list of L tensors (B, …, H_l, W_l).

        In float32, under autocast too: anchors take the type of the scores.
        """
        return [
            [level.float() for level in levels] for levels in self.dense_head(feats)
        ]

    def read(self, outputs: Sequence[Sequence[Tensor]], img_shapes: Tensor) -> Tensor:
        """Boxes of what :meth:`run` returned, (B, Q, 4) xyzr."""
        bboxes = []
        for clip, (height, width) in enumerate(img_shapes.tolist()):
            # Cells in the padding would propose boxes at the border of the frame.
            sizes = [
                (ceil(height / high), ceil(width / wide)) for wide, high in self.strides
            ]
            within = [
                [
                    level[clip : clip + 1, :, :rows, :columns]
                    for level, (rows, columns) in zip(levels, sizes, strict=True)
                ]
                for levels in outputs
            ]
            (found,) = self.dense_head.predict_by_feat(
                *within,
                batch_img_metas=[make_meta((height, width), (height, width))],
            )
            frame = frame_bboxes(img_shapes[clip])
            bboxes.append(
                best_bboxes(found.bboxes, found.scores, frame, self.num_queries)
            )
        return xyxy_to_xyzr(torch.stack(bboxes))


def complete_head(
    dense_head: Mapping, *, num_queries: int, embed_dims: int
) -> ConfigDict:
    """The config of a dense head, with defaults for what it leaves open."""
    name = dense_head['type']
    name = (name if isinstance(name, str) else name.__name__).rpartition('.')[-1]
    defaults = dict(
        num_classes=1,
        in_channels=embed_dims,
        test_cfg=dict(
            nms_pre=1000,
            min_bbox_size=0,
            score_thr=0.0,  # The best ones serve, however sure the head is.
            nms=dict(type='nms', iou_threshold=0.7),
            max_per_img=num_queries,
        ),
        **HEAD_DEFAULTS.get(name, {}),
    )
    if name in HEAD_DEFAULTS:
        defaults['feat_channels'] = embed_dims
    merged = Config(dict(head=defaults))
    merged.merge_from_dict(dict(head=deepcopy(dense_head)))  # takes _delete_ out
    settings = merged.head
    if name in ('FCOSHead', 'ATSSHead'):
        groups = gcd(32, settings['feat_channels'])
        settings.setdefault('norm_cfg', dict(type='GN', num_groups=groups))
    if name == 'FCOSHead':
        settings.setdefault('regress_ranges', regress_ranges(settings['strides']))
    return settings


def regress_ranges(strides: Sequence[int]) -> tuple[tuple[float, float], ...]:
    """Which distances to the sides of a box each level regresses, in pixels.

    Up to 8 cells, and no more than the level before leaves, as in FCOS (Tian et al.,
    ICCV 2019); the first and the last level have no bound.
    """
    bounds = (-1, *(8 * stride for stride in strides[:-1]), 1e8)
    return tuple(pairwise(bounds))


def ground_truth(sample: object, like: Tensor) -> InstanceData:
    """The persons of a clip as instances of class 0, on the device of a tensor."""
    bboxes = sample.gt_instances.bboxes.to(like.device, torch.float32)
    return InstanceData(
        bboxes=bboxes,
        labels=torch.zeros(len(bboxes), dtype=torch.long, device=like.device),
    )


def make_meta(img_shape: Sequence[int], pad_shape: Sequence[int]) -> dict:
    """What mmdet's heads want to know of an image.

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


def sum_levels(losses: Mapping[str, Tensor | Sequence[Tensor]]) -> dict[str, Tensor]:
    """Each loss of a dense head as one number, under the name ``proposals.…``."""
    return {
        f'proposals.{name}': value if isinstance(value, Tensor) else sum(value)
        for name, value in losses.items()
    }


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
    kept = torch.cat((top_left, bottom_right), dim=-1)
    return torch.cat((kept, frame.expand(num_boxes - len(kept), 4)))
