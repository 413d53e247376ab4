"""AP of masks, by mmdet's COCO evaluation."""

from collections.abc import Sequence

import torch
from mmdet.evaluation import CocoMetric
from pycocotools.coco import COCO

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.datasets.annotations.masks import PERSON, to_coco
from stmixer_mm.datasets.person_dataset import join_root
from stmixer_mm.errors import UserError
from stmixer_mm.pictures import encode
from stmixer_mm.projects.masks.mask_files import read_masks
from stmixer_mm.projects.masks.mask_head import resize
from stmixer_mm.registry import METRICS


@METRICS.register_module()
class MaskAPMetric(CocoMetric):
    """AP of persons' masks, scored by ``person_scores``, as COCO defines it.

    All keyframes of the mask file are compared, tested or not. Where masks
    of persons are unknown (``iscrowd``), predicted ones do not count. Values, over all
    persons, whatever they do: ``segm_mAP`` (over IoU thresholds from 0.5 to 0.95),
    ``segm_mAP_50``, ``segm_mAP_75``.

    Args:
        mask_file: See :mod:`stmixer_mm.datasets.annotations.masks`.
        data_root: Folder that it is in.
        **kwargs: Arguments of the host's ``CocoMetric``.

    Raises:
        UserError: The file is faulty, or has none of the tested keyframes.
    """

    default_prefix = 'mask'

    def __init__(self, mask_file: str, *, data_root: str | None = '', **kwargs) -> None:
        items = ['mAP', 'mAP_50', 'mAP_75']
        super().__init__(metric='segm', metric_items=items, **kwargs)
        self._path = join_root(data_root, mask_file)
        self._coco_api = COCO()
        self._coco_api.dataset = content = to_coco(read_masks(self._path))
        self._coco_api.createIndex()
        self.cat_ids = [PERSON['id']]
        self.img_ids = [image['id'] for image in content['images']]
        self._images = {image['file_name']: image for image in content['images']}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the masks of a batch, at the size of the true ones."""
        keys = [
            keyframe_key(sample['video_id'], sample['timestamp'])
            for sample in data_samples
        ]
        hosted = [
            as_hosted(sample['pred_instances'], self._images[key])
            for key, sample in zip(keys, data_samples, strict=True)
            if key in self._images
        ]
        super().process(data_batch, hosted)

    def compute_metrics(self, results: list[tuple[dict, dict]]) -> dict[str, float]:
        # A keyframe that a sampler repeats counts once.
        by_image = {result['img_id']: (gt, result) for gt, result in results}
        if not by_image:
            raise UserError(
                f'None of the predicted keyframes is in {self._path}; give MaskAPMetric '
                'the masks of the tested dataset.'
            )
        if not any(len(result['masks']) for _, result in by_image.values()):
            return {f'segm_{item}': 0.0 for item in self.metric_items}
        return super().compute_metrics(list(by_image.values()))


def as_hosted(found: dict, image: dict) -> dict:
    """Predictions in the form of the host, at the size of an image of the file."""
    size = image['height'], image['width']
    masks = resize(torch.as_tensor(found['masks']).float(), size) > 0.5
    return dict(
        img_id=image['id'],
        ori_shape=size,
        pred_instances=dict(
            bboxes=torch.as_tensor(found['bboxes']).cpu()
            * torch.tensor(size[::-1] * 2),
            scores=torch.as_tensor(found['person_scores']),
            labels=torch.zeros(len(masks), dtype=torch.long),
            masks=[encode(mask) for mask in masks.cpu().numpy()],
        ),
    )
