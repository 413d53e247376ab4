"""Bring the levels of a backbone to one width, and to one number of frames.

Shapes: B clips, C channels, T frames, L levels.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule, ModuleList, caffe2_xavier_init
from torch import Tensor, nn

from stmixer_mm.models.necks.levels import as_levels, check_channels
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
class ChannelProjection3D(BaseModule):
    """One 1x1x1 convolution per level.

    Args:
        in_channels: Channels of the backbone's levels, finest first.
        out_channels: Channels of all levels afterwards.
        num_frames: Bring every level to this many frames, for backbones that stride
            time; None leaves time alone.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        out_channels: int,
        num_frames: int | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = tuple(in_channels)
        self.num_frames = num_frames
        self.projections = ModuleList(
            nn.Conv3d(channels, out_channels, kernel_size=1) for channels in in_channels
        )

    def init_weights(self) -> None:
        for projection in self.projections:
            caffe2_xavier_init(projection)
        super().init_weights()

    def forward(self, feats: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """(B, in_channels[l], T, H_l, W_l) -> (B, out_channels, T, H_l, W_l)"""
        feats = as_levels(feats)
        check_channels(feats, self)
        feats = [
            project(feat) for project, feat in zip(self.projections, feats, strict=True)
        ]
        if self.num_frames is None:
            return feats
        return [resample_time(feat, self.num_frames) for feat in feats]


@MODELS.register_module()
class ResampleTime(BaseModule):
    """Every level at the same number of frames; an adapter for a list of necks.

    Args:
        num_frames: T of all levels afterwards.
    """

    def __init__(self, *, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames

    def forward(self, feats: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Levels (B, C_l, T_l, H_l, W_l) -> (B, C_l, num_frames, H_l, W_l)"""
        return [resample_time(feat, self.num_frames) for feat in as_levels(feats)]
