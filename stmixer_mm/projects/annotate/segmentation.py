"""Masks of persons as COCO's JSON has them: polygons or RLE."""

import numpy as np
from pycocotools import mask as coco_masks

from stmixer_mm.pictures import Mask, decode, encode


def read_segmentation(segmentation: object, size: tuple[int, int]) -> Mask | None:
    """RLE of what COCO's JSON calls a segmentation: polygons or RLE.

    Args:
        segmentation: As in the JSON file.
        size: (h, w) of the frame.

    Returns:
        None if there is none, or it has no pixel.

    Raises:
        ValueError: It is neither, or does not fit the frame.
    """
    height, width = size
    if isinstance(segmentation, dict) and segmentation:
        if tuple(segmentation['size']) != size:
            raise ValueError(f'its mask is not of {height} rows and {width} columns')
        mask = encode(decode(segmentation))
    else:
        polygons = [_read_polygon(part, size) for part in segmentation or () if part]
        if not polygons:
            return None
        rle = coco_masks.merge(coco_masks.frPyObjects(polygons, height, width))
        mask = dict(size=[height, width], counts=rle['counts'].decode())
    return mask if coco_masks.area(mask) else None


def _read_polygon(polygon: object, size: tuple[int, int]) -> list[float]:
    """x1, y1, x2, … of three or more points, at most a frame's size outside it."""
    points = np.array(polygon, float).reshape(-1, 2)
    # Far points take pycocotools gigabytes; NaN does not pass either.
    if not (len(points) > 2 and (abs(points / size[::-1] - 0.5) <= 1.5).all()):
        raise ValueError('its polygon has no three points in or near the frame')
    return points.ravel().tolist()
