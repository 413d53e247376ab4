"""AP of masks, by pycocotools."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from itertools import chain
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.datasets.person_dataset import join_root
from stmixer_mm.errors import UserError
from stmixer_mm.pictures import encode
from stmixer_mm.projects.common.masks import PERSON, to_coco
from stmixer_mm.projects.masks.mask_files import read_masks
from stmixer_mm.projects.masks.mask_head import resize
from stmixer_mm.registry import METRICS

NAMES = 'segm_mAP', 'segm_mAP_50', 'segm_mAP_75'


@METRICS.register_module()
class MaskAPMetric(BaseMetric):
    """AP of persons' masks, scored by ``person_scores``, as COCO defines it.

    All keyframes of the mask file are compared, tested or not. Where masks
    of persons are unknown (``iscrowd``), predicted ones do not count. Values, over all
    persons, whatever they do: ``segm_mAP`` (over IoU thresholds from 0.5 to 0.95),
    ``segm_mAP_50``, ``segm_mAP_75``.

    Args:
        mask_file: See :mod:`stmixer_mm.projects.common.masks`.
        data_root: Folder that it is in.
        shared: Arguments of mmengine's ``BaseMetric``.

    Raises:
        UserError: The file is faulty, or has none of the tested keyframes.
    """

    default_prefix = 'mask'

    def __init__(
        self, mask_file: str, *, data_root: str | None = '', **shared: Any
    ) -> None:
        super().__init__(**shared)
        self._path = join_root(data_root, mask_file)
        self._truth = COCO()
        self._truth.dataset = content = to_coco(read_masks(self._path))
        with redirect_stdout(io.StringIO()):
            self._truth.createIndex()
        self._images = {image['file_name']: image for image in content['images']}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the masks of a batch, at the size of the true ones."""
        for sample in data_samples:
            key = keyframe_key(sample['video_id'], sample['timestamp'])
            if image := self._images.get(key):
                masks = predicted_masks(sample['pred_instances'], image)
                self.results.append((image['id'], masks))

    def compute_metrics(
        self, results: Sequence[tuple[int, list[dict]]]
    ) -> dict[str, float]:
        """Values over the keyframes, of which those that samplers repeat count once."""
        if not results:
            raise UserError(
                f'None of the predicted keyframes is in {self._path}; give MaskAPMetric '
                'the masks of the tested dataset.'
            )
        masks = [*chain(*dict(results).values())]
        if not masks:
            return dict.fromkeys(NAMES, 0.0)
        with redirect_stdout(io.StringIO()) as table:
            evaluation = COCOeval(self._truth, self._truth.loadRes(masks), 'segm')
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        MMLogger.get_current_instance().info('\n' + table.getvalue())
        return dict(zip(NAMES, evaluation.stats[: len(NAMES)].tolist(), strict=True))


def predicted_masks(instances: dict, image: dict) -> list[dict]:
    """Predictions as COCO's results, at the size of an image of the file."""
    size = image['height'], image['width']
    masks = resize(torch.as_tensor(instances['masks']).float(), size) > 0.5
    scores = torch.as_tensor(instances['person_scores']).tolist()
    return [
        dict(
            image_id=image['id'],
            category_id=PERSON['id'],
            segmentation=encode(mask),
            score=score,
        )
        for mask, score in zip(masks.cpu().numpy(), scores, strict=True)
    ]
