"""Where the queries look, and in which levels.

Shapes: B clips, Q queries, G groups, P points of a group, L levels.
"""

from collections.abc import Sequence
from math import log2

import torch
from torch import Tensor

from ...boxes import box_size
from ...precision import full_precision


def make_sample_points(offsets: Tensor, boxes_xyzr: Tensor) -> Tensor:
    """Place points relative to their boxes (paper, section 3.2).

    Args:
        offsets: (dx, dy, dz) in box widths, box heights and octaves of scale,
            (B, Q, G, P, 3).
        boxes_xyzr: (B, Q, 4).

    Returns:
        (x, y, z), pixels of the padded clip and log2 of a scale in pixels,
        (B, Q, G, P, 3).
    """
    boxes_xyzr = full_precision(boxes_xyzr)[:, :, None, None]
    scale = torch.cat(
        (box_size(boxes_xyzr), torch.ones_like(boxes_xyzr[..., :1])), dim=-1
    )
    return boxes_xyzr[..., :3] + full_precision(offsets) * scale


def level_weights(z: Tensor, strides: Sequence[int]) -> Tensor:
    """Soft assignment of a scale to the levels of a pyramid.

    Args:
        z: log2 of a scale in pixels, (...). Twice the finest stride is level 0.
        strides: Strides of the levels, finest first.

    Returns:
        (..., L), positive, summing to 1 over the levels.
    """
    level = full_precision(z).unsqueeze(-1) - log2(2 * strides[0])
    distance = level - torch.arange(len(strides), device=z.device)
    return (-(distance**2) / 2).softmax(dim=-1)
