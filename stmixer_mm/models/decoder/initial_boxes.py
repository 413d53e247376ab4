"""The boxes that the queries start from.

Shapes: B clips, Q queries.
"""

from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.model import BaseModule
from torch import Tensor

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


def frame_bboxes(img_shapes: Tensor) -> Tensor:
    """Frames of (h, w), (..., 2), as pixel corners, (..., 4), float32."""
    width_height = img_shapes.float().flip(-1)
    return torch.cat((torch.zeros_like(width_height), width_height), dim=-1)


def build_initial_boxes(config: dict | None, decoder: QueryDecoder) -> InitialBoxes:
    """The first boxes of a decoder's queries."""
    config = config or dict(type='stmixer_mm.WholeFrameBoxes')
    return MODELS.build(config, default_args=decoder.sizes)
