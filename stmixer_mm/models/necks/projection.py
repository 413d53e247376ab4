"""Bring the maps of a convolutional backbone to one width."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule, ModuleList, caffe2_xavier_init
from torch import Tensor, nn

from ...registry import MODELS


@MODELS.register_module()
class ChannelProjection3D(BaseModule):
    """One 1x1x1 convolution per level.

    Args:
        in_channels: Channels of the backbone's maps, finest first.
        out_channels: Channels of all maps afterwards.
        num_frames: Bring every map to this many frames, for backbones that stride
            time; None leaves time alone.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        out_channels: int,
        num_frames: int | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.num_frames = num_frames
        self.projections = ModuleList(
            nn.Conv3d(channels, out_channels, kernel_size=1) for channels in in_channels
        )

    def init_weights(self) -> None:
        for projection in self.projections:
            caffe2_xavier_init(projection)
        super().init_weights()

    def forward(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """(B, in_channels[l], T, H_l, W_l) -> (B, out_channels, T, H_l, W_l)

        Raises:
            ValueError: The number of maps is not that of ``in_channels``.
        """
        if len(feats) != len(self.projections):
            raise ValueError(
                f'The backbone yields {len(feats)} maps but the neck has '
                f'{len(self.projections)} in_channels; give one per map (see the '
                "backbone's out_indices)."
            )
        feats = [
            project(feat) for project, feat in zip(self.projections, feats, strict=True)
        ]
        if self.num_frames is None:
            return feats
        return [resample_time(feat, self.num_frames) for feat in feats]


def resample_time(feat: Tensor, num_frames: int) -> Tensor:
    """(B, C, T, H, W) to ``num_frames``: means of more frames, or between fewer ones."""
    frames, height, width = feat.shape[2:]
    if frames >= num_frames:
        return F.adaptive_avg_pool3d(feat, (num_frames, height, width))
    return F.interpolate(feat, (num_frames, height, width), mode='trilinear')
