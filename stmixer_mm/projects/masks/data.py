"""Masks of persons at keyframes, moved as the frames are."""

from collections.abc import Callable, Sequence

import numpy as np
from mmaction.datasets.transforms import PackActionInputs
from torch import from_numpy

from stmixer_mm.datasets.frames import is_stretched
from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.datasets.person_dataset import join_root
from stmixer_mm.datasets.persons import unpack_persons
from stmixer_mm.errors import UserError
from stmixer_mm.pictures import decode, warp_mask
from stmixer_mm.projects.common.masks import KeyframeMasks
from stmixer_mm.projects.masks.mask_files import read_masks
from stmixer_mm.registry import DATASETS, TRANSFORMS

# Two points (x, y), in pixels, that the host's transforms move with the frame, as they
# move joints of persons. Neither is at 0, which to them is no joint.
MARKS = np.array([[[[0.37, 0.37], [64.41, 64.41]]]])


@DATASETS.register_module()
class KeyframeMaskDataset(KeyframeDataset):
    """A :class:`KeyframeDataset` whose samples have masks of persons.

    A sample also has ``gt_masks`` (k,), COCO's RLE, None where the file lacks a person.

    Args:
        ann_file: As in :class:`KeyframeDataset`.
        pipeline: With ``PackMasks`` at its end.
        mask_file: Masks, see :mod:`stmixer_mm.projects.common.masks`.
        shared: Arguments of :class:`KeyframeDataset`.

    Raises:
        UserError: as :class:`KeyframeDataset`; also if the file is faulty or has no
            mask of these persons.
    """

    def __init__(
        self,
        ann_file: str,
        pipeline: Sequence[dict | Callable],
        *,
        mask_file: str,
        data_root: str | None = '',
        **shared,
    ) -> None:
        self.mask_file = join_root(data_root, mask_file)
        super().__init__(ann_file, pipeline, data_root=data_root, **shared)

    def load_data_list(self) -> list[dict]:
        """The keyframes, each with the masks of its persons."""
        infos, masks = super().load_data_list(), read_masks(self.mask_file)
        for info in infos:
            keyframe_masks = masks.get(info['img_key'], KeyframeMasks(None, {}, []))
            ids = unpack_persons(info['ann'], self.num_classes)['id'].tolist()
            info['gt_masks'] = [keyframe_masks.masks.get(number) for number in ids]
        if not any(mask for info in infos for mask in info['gt_masks']):
            raise UserError(
                f'{self.mask_file} has a mask of no person of {self.ann_file}; give the '
                'mask file of this split.'
            )
        return infos

    def get_data_info(self, idx: int) -> dict:
        """The sample that the pipeline gets."""
        info = super().get_data_info(idx)
        masks = np.array(info['gt_masks'], object)
        # The host's transforms move the marks, which tell PackMasks how frames moved.
        return {**info, 'gt_masks': masks, 'keypoint': MARKS.copy()}


@TRANSFORMS.register_module()
class PackMasks(PackActionInputs):
    """The host's ``PackActionInputs`` (see it for arguments), with masks of persons.

    Put it after all geometric transforms. From ``gt_masks`` and ``keypoint``, of
    :class:`KeyframeMaskDataset`, ``gt_instances`` get ``masks`` (k, h, w) bool, moved
    as the frames were: cropped, resized and flipped in any order, but not by
    ``ImgAug``, which moves no keypoints. An unknown mask has no pixel. Without these
    keys, as in inference, only the metainfo gets the ``ori_shape`` (h, w) of the
    frames, the size of predicted masks.

    Raises:
        UserError: A mask does not fit the video's frames.
    """

    def transform(self, results: dict) -> dict:
        packed = super().transform(results)
        sample, ori_shape = packed['data_samples'], tuple(results['original_shape'])
        sample.set_metainfo(dict(ori_shape=ori_shape))
        if 'gt_masks' in results:
            points, moved_points = MARKS[0, 0], results['keypoint'][0, 0]
            scale = (moved_points[1] - moved_points[0]) / (points[1] - points[0])
            shift = moved_points[0] - scale * points[0]
            masks = np.zeros((len(results['gt_masks']), *results['img_shape']), bool)
            for row, mask in zip(masks, results['gt_masks'], strict=True):
                if mask is not None:
                    row[:] = _warp_mask(mask, results, scale, shift)
            sample.gt_instances.masks = from_numpy(masks)
        return packed


def _warp_mask(
    mask: dict, results: dict, scale: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """A mask (h, w) of a frame that was scaled, and then shifted, by (x, y)."""
    size, ori_shape = tuple(mask['size']), results['original_shape']
    if is_stretched(size, ori_shape):
        raise UserError(
            f'A mask of keyframe {results["img_key"]} is {size[1]}x{size[0]} pixels '
            f'but the video {ori_shape[1]}x{ori_shape[0]}; give masks of its frames.'
        )
    scale = scale * np.divide(ori_shape, size)[::-1]
    return warp_mask(decode(mask), scale, shift, results['img_shape'])
