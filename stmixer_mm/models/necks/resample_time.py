"""Bring the levels of a backbone that strides time to one number of frames.

Shapes: B clips, C channels, T frames, L levels.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from stmixer_mm.models.necks.levels import as_levels
from stmixer_mm.registry import MODELS


def resample_time(feat: Tensor, num_frames: int) -> Tensor:
    """(B, C, T, H, W) to ``num_frames``: means of more, or interpolation of fewer."""
    frames, height, width = feat.shape[2:]
    if frames == num_frames:
        return feat
    if frames > num_frames:
        return torch.stack(
            [
                feat[
                    :, :, start * frames // num_frames : -(-stop * frames // num_frames)
                ].mean(dim=2)
                for start, stop in pairwise(range(num_frames + 1))
            ],
            dim=2,
        )
    return F.interpolate(feat, (num_frames, height, width), mode='trilinear')


@MODELS.register_module()
class ResampleTime(BaseModule):
    """Every level at the same number of frames; an adapter for a list of necks.

    Args:
        num_frames: T of all levels afterwards.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.
    """

    def __init__(self, *, num_frames: int, init_cfg: dict | list | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.num_frames = num_frames

    def forward(self, feats: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Levels (B, C_l, T_l, H_l, W_l) -> (B, C_l, num_frames, H_l, W_l)"""
        return [resample_time(feat, self.num_frames) for feat in as_levels(feats)]
