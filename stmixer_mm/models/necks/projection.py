"""Bring the levels of a backbone to one width, and to one number of frames.

Shapes: B clips, C channels, T frames, L levels.
"""

from collections.abc import Sequence

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
    mode = 'area' if frames > num_frames else 'trilinear'
    return F.interpolate(feat, (num_frames, height, width), mode=mode)


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
