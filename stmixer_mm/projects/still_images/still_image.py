"""The detector for still images: clips of one frame, boxes of one class.

Shapes: B images, Q queries, A classes, k objects, n detections, L levels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from stmixer_mm.models.boxes import frame_scale
from stmixer_mm.models.detectors.stmixer import STMixer
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import StageOutput


@MODELS.register_module()
class StillImageSTMixer(STMixer):
    """STMixer as a detector of mmdet: an image is a clip of one frame (T = 1).

    It takes mmdet's samples, preprocessor, 2-D backbones and 2-D necks, and runs in
    mmdet's tools. A class is to a box what an action is to a person: the decoder's
    person logits say whether there is an object, its action logits of which class, and
    ``num_classes`` of the head is A + 1.

    Args:
        max_per_img: Keep this many detections of an image; a detection is a pair of
            query and class, its score what the head makes of them (``score_mode``).
        **kwargs: Arguments of :class:`STMixer`; the backbone takes images
            (B, 3, H, W), the neck yields levels (B, C, H_l, W_l), and the decoder has
            ``num_frames=1``.
    """

    output_type = StageOutput

    def __init__(self, *, max_per_img: int = 100, **kwargs) -> None:
        super().__init__(**kwargs)
        self.max_per_img = max_per_img

    def loss_and_extract_feat(
        self, inputs: Tensor
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Images (B, 3, H, W) to L levels (B, C, 1, H_l, W_l)."""
        losses, feats = super().loss_and_extract_feat(inputs)
        return losses, [feat.unsqueeze(2) for feat in feats]

    def loss(
        self, inputs: Tensor, data_samples: Sequence[DetDataSample]
    ) -> dict[str, Tensor]:
        """Weighted loss terms; ``gt_instances.labels`` are class numbers (k,)."""
        return super().loss(
            inputs, [clip_sample(one, self.num_classes) for one in data_samples]
        )

    def predict(
        self, inputs: Tensor, data_samples: Sequence[DetDataSample]
    ) -> Sequence[DetDataSample]:
        """The same samples with ``pred_instances``, the best detection first.

        ``bboxes`` (n, 4) are xyxy in pixels of the image before it was resized,
        ``scores`` (n,), ``labels`` (n,) class numbers; ``masks`` (n, h, w) with a mask
        head.
        """
        for sample in super().predict(inputs, data_samples):
            sample.pred_instances = pick_detections(
                sample.pred_instances, sample.metainfo, self.max_per_img
            )
        return data_samples


def clip_sample(sample: DetDataSample, num_classes: int) -> ActionDataSample:
    """What the head reads of an image: boxes, and labels (k, num_classes) multi-hot."""
    objects = sample.gt_instances
    masks = dict(masks=objects.masks) if 'masks' in objects else {}
    name = sample.get('img_path') or sample.get('img_id')
    return ActionDataSample(
        metainfo=dict(sample.metainfo, img_key=str(name)),
        gt_instances=InstanceData(
            bboxes=get_box_tensor(objects.bboxes),
            # Column 0 is the dummy.
            labels=F.one_hot(objects.labels + 1, num_classes).float(),
            **masks,
        ),
    )


def pick_detections(
    predictions: InstanceData, metainfo: dict, max_per_img: int
) -> InstanceData:
    """The best pairs of query and class.

    Args:
        predictions: ``bboxes`` (Q, 4) normalised, ``scores`` (Q, A + 1).
        metainfo: ``img_shape``, and, where the image was resized, ``scale_factor``
            (w, h) and ``ori_shape``.
        max_per_img: How many at most.
    """
    scores = predictions.scores[:, 1:]
    num_classes = scores.size(1)
    scores, pairs = scores.flatten().topk(min(max_per_img, scores.numel()))
    bboxes = predictions.bboxes[pairs // num_classes]
    resized = bboxes.new_tensor(metainfo.get('scale_factor', (1, 1))[:2]).repeat(2)
    bboxes = bboxes * frame_scale(metainfo['img_shape'], bboxes) / resized
    if 'ori_shape' in metainfo:
        bboxes = torch.minimum(bboxes, frame_scale(metainfo['ori_shape'][:2], bboxes))
    found = InstanceData(bboxes=bboxes, scores=scores, labels=pairs % num_classes)
    if 'masks' in predictions:
        found.masks = predictions.masks[pairs // num_classes]
    return found
