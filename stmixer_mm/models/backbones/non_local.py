"""The non-local block of the released SlowFast-R101-NL."""

from mmengine.model import BaseModule
from torch import Tensor, nn


class NonLocalBlock3D(BaseModule):
    """Dot-product non-local block (Wang et al., CVPR 2018).

    Differs from mmcv's ``NonLocal3d``: it pools the *input* of phi and g, divides by
    the number of keys, and has a bias before the last batch norm.

    Args:
        channels: Channels of the input; the inner width is half of it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.theta = nn.Conv3d(channels, inner, kernel_size=1)
        self.phi = nn.Conv3d(channels, inner, kernel_size=1)
        self.g = nn.Conv3d(channels, inner, kernel_size=1)
        self.pool = nn.MaxPool3d(kernel_size=2)
        self.conv_out = nn.Conv3d(inner, channels, kernel_size=1)
        self.bn = nn.BatchNorm3d(channels)

    def init_weights(self) -> None:
        # The block starts as the identity, so that pretrained weights keep working.
        nn.init.zeros_(self.bn.weight)
        super().init_weights()

    def forward(self, feat: Tensor) -> Tensor:
        """(B, C, T, H, W) -> the same shape"""
        pooled = self.pool(feat)
        queries = self.theta(feat).flatten(2)
        keys, values = self.phi(pooled).flatten(2), self.g(pooled).flatten(2)
        affinity = queries.transpose(1, 2) @ keys / keys.size(2)
        attended = (values @ affinity.transpose(1, 2)).unflatten(2, feat.shape[2:])
        return feat + self.bn(self.conv_out(attended))
