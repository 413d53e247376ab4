"""A feature pyramid from the one feature map of a plain vision transformer."""

from collections.abc import Sequence

from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from stmixer_mm.models.necks.levels import as_levels
from stmixer_mm.registry import MODELS


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, T, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, feat: Tensor) -> Tensor:
        return super().forward(feat.movedim(1, -1)).movedim(-1, 1)


def _double(in_channels: int) -> nn.ConvTranspose3d:
    """Twice the size in space, half the channels."""
    return nn.ConvTranspose3d(
        in_channels, in_channels // 2, kernel_size=(1, 2, 2), stride=(1, 2, 2)
    )


def _resize(in_channels: int, scale: float) -> tuple[list[nn.Module], int]:
    """Layers that scale a level in space, and the channels that they yield."""
    if scale == 4:
        half = in_channels // 2
        layers = [_double(in_channels), _ChannelNorm(half), nn.GELU(), _double(half)]
        return layers, in_channels // 4
    if scale == 2:
        return [_double(in_channels)], in_channels // 2
    return {1: [], 0.5: [nn.MaxPool3d(kernel_size=(1, 2, 2))]}[scale], in_channels


@MODELS.register_module()
class ViTPyramid3D(BaseModule):
    """Levels of several scales from one (after ViTDet's simple feature pyramid).

    Every scale ends in a 1x1x1 convolution, layer norm, 3x3x3 convolution.

    Args:
        in_channels: Channels of the transformer's feature map.
        out_channels: Channels of all levels afterwards.
        scales: Sizes relative to the input, of 4, 2, 1 and 0.5, finest first.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        scales: Sequence[float] = (4, 2, 1, 0.5),
    ) -> None:
        super().__init__()
        self.branches = ModuleList()
        for scale in scales:
            layers, channels = _resize(in_channels, scale)
            self.branches.append(
                nn.Sequential(
                    *layers,
                    nn.Conv3d(channels, out_channels, kernel_size=1, bias=False),
                    _ChannelNorm(out_channels),
                    nn.Conv3d(
                        out_channels, out_channels, kernel_size=3, padding=1, bias=False
                    ),
                )
            )

    def forward(self, feats: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """
        Args:
            feats: (B, in_channels, T, H, W), or a sequence that holds it last.

        Returns:
            (B, out_channels, T, scale * H, scale * W) for each scale.
        """
        feat = as_levels(feats)[-1]
        return [branch(feat) for branch in self.branches]
