"""Masks of persons as COCO's JSON has them: polygons or RLE."""

import reprlib

import numpy as np
from pycocotools import mask as coco_masks

from stmixer_mm.structures import Mask, decode


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
    if all(part == [] for part in segmentation or ()):
        return None
    height, width = size
    if isinstance(segmentation, dict):
        counts, given = segmentation.get('counts'), segmentation.get('size')
        if given != [height, width]:
            raise ValueError(
                f'its mask has the size {reprlib.repr(given)}, but the frame has '
                f'{height} rows and {width} columns'
            )
        if isinstance(counts, str):
            rle = dict(size=[height, width], counts=counts.encode())
            decode(rle)  # pycocotools never stops comparing counts that run over
        elif (
            not isinstance(counts, list)
            or not all(isinstance(one, int) and one >= 0 for one in counts)
            or sum(counts) != height * width
        ):
            raise ValueError('the counts of its RLE do not fill the frame')
        else:
            rle = coco_masks.frPyObjects(segmentation, height, width)
    else:
        polygons = [_read_polygon(part, size) for part in segmentation if part != []]
        rle = coco_masks.merge(coco_masks.frPyObjects(polygons, height, width))
    if not coco_masks.area(rle):
        return None
    return dict(size=[height, width], counts=rle['counts'].decode())


def _read_polygon(polygon: object, size: tuple[int, int]) -> list[float]:
    """x1, y1, x2, … of three or more points, at most a frame's size outside it."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise ValueError('its polygon is not a list x1, y1, x2, … of three points')
    points = np.array(polygon, float).reshape(-1, 2)
    sides = np.array(size[::-1])
    if not (np.abs(points / sides - 0.5) <= 1.5).all():  # false for NaN too
        raise ValueError('its polygon leaves the frame by more than the size of that')
    return points.ravel().tolist()
