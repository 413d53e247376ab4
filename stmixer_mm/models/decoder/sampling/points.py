"""Where the queries look, and in which levels.

Shapes: B clips, Q queries, G groups, P points of a group, L levels.
"""

import torch
from torch import Tensor

from stmixer_mm.models.boxes import box_size
from stmixer_mm.models.precision import full_precision


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


def level_weights(z: Tensor, strides: Tensor) -> Tensor:
    """Soft assignment of a scale to the levels of a pyramid.

    Args:
        z: log2 of a scale in pixels, (...). A level's own scale is twice its stride.
        strides: Strides of the levels, (L,).

    Returns:
        (..., L), positive, summing to 1 over the levels.
    """
    # Levels come first, so that the inner loops are long.
    levels_z = (2 * strides).log2().view(-1, *(1,) * z.dim())
    distance = full_precision(z) - levels_z
    return (-(distance**2) / 2).softmax(dim=0).movedim(0, -1)
