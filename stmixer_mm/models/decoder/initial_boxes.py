"""The boxes that the queries start from.

Shapes: B clips, Q queries.
"""

from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from stmixer_mm.models.boxes import xyxy_to_xyzr
from stmixer_mm.models.decoder.query_decoder import QueryDecoder
from stmixer_mm.registry import MODELS


class FrameShapes(NamedTuple):
    """Sizes of the frames of a batch, on the device of its feats."""

    img_shapes: Tensor  # (B, 2): (h, w) of each clip without padding
    pad_shape: tuple[int, int]  # (h, w) of all clips with padding


class InitialBoxes(BaseModule, metaclass=ABCMeta):
    """The first boxes of a decoder's queries.

    Args:
        num_queries, embed_dims: Q and C; the detector sets them.
    """

    def __init__(self, *, num_queries: int, embed_dims: int) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.embed_dims = embed_dims

    @abstractmethod
    def predict(self, feats: Sequence[Tensor], frames: FrameShapes) -> Tensor:
        """``boxes_xyzr`` (B, Q, 4), float32, for levels (B, C, T, H_l, W_l)."""

    def loss_and_predict(
        self, feats: Sequence[Tensor], data_samples: Sequence, frames: FrameShapes
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Weighted loss terms of what is trained here, and the boxes."""
        return {}, self.predict(feats, frames)


@MODELS.register_module()
class WholeFrameBoxes(InitialBoxes):
    """Every query starts from the whole frame, as in the release."""

    def predict(self, feats: Sequence[Tensor], frames: FrameShapes) -> Tensor:
        whole_frame = frame_bboxes(frames.img_shapes)
        return xyxy_to_xyzr(whole_frame)[:, None].repeat(1, self.num_queries, 1)


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


def frame_bboxes(img_shapes: Tensor) -> Tensor:
    """Frames of (h, w), (..., 2), as pixel corners, (..., 4), float32."""
    width_height = img_shapes.float().flip(-1)
    return torch.cat((torch.zeros_like(width_height), width_height), dim=-1)


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


def build_initial_boxes(config: dict | None, decoder: QueryDecoder) -> InitialBoxes:
    """The first boxes of a decoder's queries."""
    config = config or dict(type='stmixer_mm.WholeFrameBoxes')
    return MODELS.build(config, default_args=decoder.sizes)
