"""Predictions of a clip and of its mirror image, merged.

n persons of the clip, m of the image; K frames, A actions.
"""

import copy

import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class FlipTTAModel(BaseTTAModel):
    """A detector of keyframes or tubelets that sees each clip twice.

    A config tests with it by ``custom_hooks=[dict(type='mmengine.PrepareTTAHook',
    tta_cfg=dict(type='FlipTTAModel'))]``; training and checkpoints stay as they are.
    Pipelines stay too: clips are mirrored when they are loaded, before padding.

    Args:
        iou_thr: Mean IoU over the frames from which two persons are one.
        flip_label_map: Number of an action -> number of what it is in a mirror, as of
            mmaction2's ``Flip``: walking left and right, say.
    """

    def __init__(
        self,
        *,
        iou_thr: float = 0.5,
        flip_label_map: dict[int, int] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.iou_thr, self.flip_label_map = iou_thr, flip_label_map or {}

    def test_step(self, data: dict) -> list:
        """The samples of a batch of the loader, with merged ``pred_instances``."""
        if 'inputs' not in data:
            raise UserError(
                'FlipTTAModel mirrors clips, not the persons of banks; test without '
                'BankDataset, or without PrepareTTAHook.'
            )
        mirrored = dict(
            inputs=[clip.flip(-1) for clip in data['inputs']],
            data_samples=copy.deepcopy(data['data_samples']),
        )
        views = map(self.module.test_step, (data, mirrored))
        return self.merge_preds(list(zip(*views, strict=True)))

    def merge_preds(self, data_samples_list: list) -> list:
        for straight, mirrored in data_samples_list:
            instances = mirrored.pred_instances
            columns = list(range(instances.scores.size(-1)))
            for label, image in self.flip_label_map.items():
                columns[label] = image
            instances.scores = instances.scores[..., columns]
            straight.pred_instances = merge_mirrored(
                straight.pred_instances, instances, iou_thr=self.iou_thr
            )
        return [straight for straight, _ in data_samples_list]


def merge_mirrored(
    straight: InstanceData, mirrored: InstanceData, *, iou_thr: float
) -> InstanceData:
    """Persons of both views: means of boxes and scores; a view that misses one gives 0.

    Args:
        straight: ``bboxes`` (n, 4) or (n, K, 4) in [0, 1], and fields ``…scores``;
            others are dropped.
        mirrored: The same of m persons in the mirror image.
        iou_thr: See :class:`FlipTTAModel`.
    """
    bboxes, mirrored_bboxes = straight.bboxes, mirror(mirrored.bboxes)
    ious = bbox_overlaps(boxes_by_frame(bboxes), boxes_by_frame(mirrored_bboxes))
    ious = ious.mean(dim=0)  # (n, m)
    rows, columns = (
        torch.as_tensor(indices, device=bboxes.device)
        for indices in linear_sum_assignment(ious.cpu(), maximize=True)
    )
    same = ious[rows, columns] >= iou_thr
    rows, columns = rows[same], columns[same]
    alone = torch.ones(len(mirrored_bboxes), dtype=torch.bool, device=bboxes.device)
    alone[columns] = False

    means = (bboxes[rows] + mirrored_bboxes[columns]) / 2
    bboxes = bboxes.index_copy(0, rows, means)
    merged = InstanceData(bboxes=torch.cat([bboxes, mirrored_bboxes[alone]]))
    for name, values in straight.items():
        if name.endswith('scores'):
            halves, more = values / 2, mirrored[name] / 2
            halves = halves.index_add(0, rows, more[columns])
            merged[name] = torch.cat([halves, more[alone]])
    return merged


def boxes_by_frame(bboxes: Tensor) -> Tensor:
    """Boxes (n, 4) or (n, K, 4) as (K, n, 4)."""
    return bboxes.flatten(1).unflatten(1, (-1, 4)).transpose(0, 1)


def mirror(bboxes: Tensor) -> Tensor:
    """Boxes (..., 4) xyxy in [0, 1] of the mirror image."""
    x1, y1, x2, y2 = bboxes.unbind(-1)
    return torch.stack([1 - x2, y1, 1 - x1, y2], dim=-1)
