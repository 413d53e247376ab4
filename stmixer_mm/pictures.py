"""Sizes of frames, and masks in them."""

from typing import TypedDict

import cv2
import numpy as np
from pycocotools import mask as coco_masks

MAX_PIXELS = 2**26  # of a frame, 8192 x 8192
_MAX_RATIO = 32  # of its sides: the short one is scaled to a few hundred pixels


def check_frame_size(height: int, width: int) -> None:
    """Raise ``ValueError`` for frames that no model takes, and no memory."""
    short, long = sorted((height, width))
    if not (short >= 2 and long <= _MAX_RATIO * short and short * long <= MAX_PIXELS):
        raise ValueError(
            f'frames of {width} x {height} pixels; sides must be 2 or more, at most '
            f'{_MAX_RATIO} to 1, and {MAX_PIXELS} pixels in all'
        )


class Mask(TypedDict):
    """COCO's compressed RLE of a mask."""

    size: tuple[int, int]  # height and width
    counts: str


def encode(mask: np.ndarray) -> Mask:
    """A mask (h, w) in COCO's RLE."""
    rle = coco_masks.encode(np.asfortranarray(mask, np.uint8))
    return dict(size=list(mask.shape), counts=rle['counts'].decode())


def decode(mask: Mask) -> np.ndarray:
    """The mask (h, w), uint8 of 0 and 1.

    Also of counts that are bytes, or not compressed. pycocotools reads and writes beyond
    its memory if counts are wrong.

    Raises:
        ValueError: the counts do not fill the frame, or it is larger than ``MAX_PIXELS``.
    """
    height, width = mask['size']
    counts = mask['counts']
    if isinstance(counts, str | bytes):
        counts = _decompress(counts.encode() if isinstance(counts, str) else counts)
    counts = np.array(counts, np.int64)
    total = height * width if height * width <= MAX_PIXELS else -1
    if ((counts < 0) | (counts > total)).any() or counts.sum() != total:
        raise ValueError('the counts of its RLE do not fill the frame')
    values = np.arange(len(counts), dtype=np.uint8) % 2
    return np.repeat(values, counts).reshape(width, height).T


def _decompress(counts: bytes) -> np.ndarray:
    """The runs of compressed counts, of which each but three is a difference.

    A number is characters of five bits, the lowest first, with a sixth bit if more follow.
    """
    bits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(bits & 32 == 0)
    lengths = np.diff(ends, prepend=-1)
    if (
        not len(ends)
        or ends[-1] != len(bits) - 1
        or lengths.max() > 6
        or bits.min() < 0
    ):
        raise ValueError('the counts of its RLE are damaged')
    places = np.arange(len(bits)) - np.repeat(ends - lengths + 1, lengths)
    runs = np.add.reduceat((bits & 31) << 5 * places, ends - lengths + 1)
    runs -= (bits[ends] >> 4 & 1) << 5 * lengths  # the sign
    for part in (runs[1::2], runs[2::2]):
        np.cumsum(part, out=part)
    return runs


def warp_mask(
    mask: np.ndarray, scale: np.ndarray, shift: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """A mask (h, w), scaled, then shifted, by (x, y), in a frame (h, w); bool."""
    # OpenCV's integer coordinates are the centres of pixels, ours their corners.
    matrix = np.column_stack((np.diag(scale), shift + (scale - 1) / 2))
    return cv2.warpAffine(255 * mask.astype(np.uint8), matrix, size[::-1]) > 127
