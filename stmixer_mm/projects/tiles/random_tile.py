"""Random tiles of the frames, to train on persons as tiles show them."""

import numpy as np
from mmaction.datasets.transforms import RandomResizedCrop

from stmixer_mm.datasets.transforms import FilterBoxes
from stmixer_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomTile(RandomResizedCrop):
    """Crop a clip to a random tile, which has the proportions of the frame.

    Put it after the frames are decoded, before they are resized. Persons of whom too
    little is inside are dropped; the boxes of the others end at the tile's border. In
    clips of tubelets that is decided in each frame, where the person is then absent.
    Masks of persons are moved as by the host's crops.

    Args:
        share: Smallest and largest share of the frame's width and height.
        min_visible: Smallest share of a person's box that must be inside of the tile.
    """

    def __init__(
        self, share: tuple[float, float] = (0.25, 1.0), *, min_visible: float = 0.5
    ) -> None:
        super().__init__()
        self.share = share
        self.min_visible = min_visible

    def get_crop_bbox(
        self, img_shape: tuple[int, int], *_: object
    ) -> tuple[int, int, int, int]:
        """A tile, as xyxy; small ones are as likely as large ones."""
        share = np.exp(np.random.uniform(*np.log(self.share)))
        height, width = (max(1, round(share * side)) for side in img_shape)
        y1 = np.random.randint(img_shape[0] - height + 1)
        x1 = np.random.randint(img_shape[1] - width + 1)
        return x1, y1, x1 + width, y1 + height

    @staticmethod
    def _box_crop(box: np.ndarray, crop_bbox: np.ndarray) -> np.ndarray:
        """The host's without its loss of a pixel at the right and at the bottom."""
        corner, size = np.tile(crop_bbox[:2], 2), crop_bbox[2:] - crop_bbox[:2]
        return np.clip(box - corner, 0, np.tile(size, 2)).astype(box.dtype)

    def transform(self, results: dict) -> dict:
        areas = _areas(results['gt_bboxes']) if 'gt_bboxes' in results else None
        results = super().transform(results)
        if areas is None:
            return results
        hidden = _areas(results['gt_bboxes']) < self.min_visible * areas
        results['gt_bboxes'][hidden] = 0
        return FilterBoxes().transform(results)


def _areas(bboxes: np.ndarray) -> np.ndarray:
    return np.prod(bboxes[..., 2:] - bboxes[..., :2], axis=-1)
