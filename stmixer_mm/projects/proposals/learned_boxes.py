"""Queries that start from learned boxes.

Shapes: B clips, Q queries.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stmixer_mm.models.boxes import xyxy_to_xyzr
from stmixer_mm.models.decoder.initial_boxes import (
    FrameShapes,
    InitialBoxes,
    frame_bboxes,
)
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class LearnedBoxes(InitialBoxes):
    """A learned box for each query, relative to the frame without padding.

    Sun et al., "Sparse R-CNN", CVPR 2021, learn their proposals like this. They start
    as a grid over the frame, see :func:`grid_bboxes`, each twice its cell.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        # (Q, 4): xyzr in a frame of 1 x 1, so that every value is a box.
        boxes_xyzr = xyxy_to_xyzr(grid_bboxes(self.num_queries, scale=2.0))
        self.relative_xyzr = nn.Parameter(boxes_xyzr)

    def predict(self, feats: Sequence[Tensor], frames: FrameShapes) -> Tensor:
        whole_frame = frame_bboxes(frames.img_shapes)[:, None]
        xy, z_r = self.relative_xyzr.float().split(2, dim=-1)
        return torch.cat(
            (xy * whole_frame[..., 2:], z_r + xyxy_to_xyzr(whole_frame)[..., 2:]),
            dim=-1,
        )


def grid_bboxes(num_boxes: int, scale: float = 1.0) -> Tensor:
    """Boxes at the cells of a grid that tiles a square, row by row.

    The cells are nearly squares, shared out evenly among the rows; ``scale`` is the
    side of a box relative to its cell. Corners are relative to the square, cut off at
    its border, (Q, 4).
    """
    rows = round(num_boxes**0.5)
    index = torch.arange(num_boxes)
    row = index * rows // num_boxes
    # Row k has the boxes from ceil(k Q / rows) up to that of row k + 1.
    first, next_first = -(-row * num_boxes // rows), -(-(row + 1) * num_boxes // rows)
    cells = torch.stack((next_first - first, torch.full_like(row, rows)), dim=-1)
    centre = (torch.stack((index - first, row), dim=-1) + 0.5) / cells
    half_size = scale / 2 / cells
    return torch.cat((centre - half_size, centre + half_size), dim=-1).clamp(0, 1)
