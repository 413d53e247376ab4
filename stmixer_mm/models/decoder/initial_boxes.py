"""Where the queries start: a box for each of them.

Shapes: B clips, Q queries.
"""

from abc import ABCMeta, abstractmethod
from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor

from ...registry import MODELS
from ..boxes import xyxy_to_xyzr


class InitialBoxes(BaseModule, metaclass=ABCMeta):
    """What gives a decoder's queries their first boxes.

    Args:
        num_queries: Q; the decoder sets it.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.
    """

    def __init__(
        self, *, num_queries: int, init_cfg: dict | list | None = None
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.num_queries = num_queries

    @abstractmethod
    def predict(
        self,
        feats: Sequence[Tensor],
        *,
        img_shapes: Tensor,
        pad_shape: tuple[int, int],
    ) -> Tensor:
        """
        Args:
            feats: L maps (B, C, T, H_l, W_l), finest first.
            img_shapes: (h, w) of each clip without padding, (B, 2).
            pad_shape: (h, w) of the padded clips.

        Returns:
            ``boxes_xyzr``, (B, Q, 4), float32, on the device of the maps.
        """

    def loss_and_predict(
        self,
        feats: Sequence[Tensor],
        data_samples: Sequence,
        *,
        img_shapes: Tensor,
        pad_shape: tuple[int, int],
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Weighted loss terms of what is trained here, and the boxes."""
        return {}, self.predict(feats, img_shapes=img_shapes, pad_shape=pad_shape)


@MODELS.register_module()
class WholeFrameBoxes(InitialBoxes):
    """Every query starts from the whole frame, as in the release."""

    def predict(
        self,
        feats: Sequence[Tensor],
        *,
        img_shapes: Tensor,
        pad_shape: tuple[int, int],
    ) -> Tensor:
        height_width = img_shapes.to(feats[0].device, torch.float32)
        whole_frame = torch.cat(
            (torch.zeros_like(height_width), height_width.flip(-1)), dim=-1
        )
        return xyxy_to_xyzr(whole_frame)[:, None].repeat(1, self.num_queries, 1)
