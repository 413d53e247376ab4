"""AP of masks, by mmdet's COCO evaluation."""

from collections.abc import Sequence

import torch
from mmdet.evaluation import CocoMetric
from pycocotools.coco import COCO

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key, read_timestamp_keys
from stmixer_mm.datasets.annotations.masks import PERSON, to_coco
from stmixer_mm.datasets.person_dataset import join_root
from stmixer_mm.errors import UserError
from stmixer_mm.projects.masks.mask_files import read_masks
from stmixer_mm.projects.masks.mask_head import resize
from stmixer_mm.registry import METRICS
from stmixer_mm.structures import encode


@METRICS.register_module()
class MaskAPMetric(CocoMetric):
    """AP of persons' masks, scored by ``person_scores``, as COCO defines it.

    All keyframes of the mask file are compared, tested or not. Where masks
    of persons are unknown (``iscrowd``), predicted ones do not count. Values, over all
    persons, whatever they do: ``segm_mAP`` (over IoU thresholds from 0.5 to 0.95),
    ``segm_mAP_50``, ``segm_mAP_75``.

    Args:
        mask_file: See :mod:`stmixer_mm.datasets.annotations.masks`.
        exclude_file: Keyframes to leave out, lines of video_id,timestamp.
        data_root: Folder that the paths are in.
        metric_items: See the host's ``CocoMetric``.
        **kwargs: Arguments of that class.
    """

    default_prefix = 'mask'

    def __init__(
        self,
        mask_file: str,
        *,
        exclude_file: str | None = None,
        data_root: str | None = '',
        metric_items: Sequence[str] = ('mAP', 'mAP_50', 'mAP_75'),
        **kwargs,
    ) -> None:
        super().__init__(metric='segm', metric_items=list(metric_items), **kwargs)
        path = join_root(data_root, mask_file)
        excluded = read_timestamp_keys(join_root(data_root, exclude_file))
        keyframes = read_masks(path).items()
        content = to_coco({key: one for key, one in keyframes if key not in excluded})
        if not content['annotations']:
            raise UserError(f'{path} has no mask to compare with; give another file.')
        self._path = path
        self._coco_api = COCO()
        self._coco_api.dataset = content
        self._coco_api.createIndex()
        self.cat_ids = [PERSON['id']]
        self.img_ids = [image['id'] for image in content['images']]
        self._images = {image['file_name']: image for image in content['images']}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the masks of a batch, at the size of the true ones.

        Raises:
            UserError: a sample has no masks.
        """
        super().process(
            data_batch,
            [
                self._as_hosted(sample, image)
                for sample in data_samples
                if (image := self._images.get(_key(sample))) is not None
            ],
        )

    def _as_hosted(self, sample: dict, image: dict) -> dict:
        """A sample in the form of the host."""
        found, size = sample['pred_instances'], (image['height'], image['width'])
        if 'masks' not in found:
            raise UserError(
                f'The predictions of {_key(sample)} have no masks; give the model a '
                'mask_head, or leave MaskAPMetric out.'
            )
        masks = resize(torch.as_tensor(found['masks']).float(), size) > 0.5
        number, scale = len(masks), torch.tensor((size[::-1] * 2), dtype=torch.float)
        return dict(
            img_id=image['id'],
            ori_shape=size,
            pred_instances=dict(
                bboxes=torch.as_tensor(found['bboxes']).cpu() * scale,
                scores=torch.as_tensor(found['person_scores']),
                labels=torch.zeros(number, dtype=torch.long),
                masks=[encode(mask) for mask in masks.cpu().numpy()],
            ),
        )

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


def _key(sample: dict) -> str:
    return keyframe_key(sample['video_id'], sample['timestamp'])
