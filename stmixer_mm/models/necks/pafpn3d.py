"""A feature pyramid with a second, bottom-up path.

Shapes: B clips, C channels, T frames, L levels; levels are finest first.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from stmixer_mm.models.necks.fpn3d import FPN3D
from stmixer_mm.models.necks.levels import resize
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class PAFPN3D(FPN3D):
    """FPN3D, then a path from the finest level to the coarsest.

    Liu et al., "Path Aggregation Network for Instance Segmentation", CVPR 2018. Equals
    mmdet's ``PAFPN`` as :class:`FPN3D` equals its ``FPN``.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        coarser = range(1, len(self.in_channels))
        self.downsample_convs = nn.ModuleList(
            self.conv(self.out_channels, stride=2) for _ in coarser
        )
        self.pafpn_convs = nn.ModuleList(self.conv(self.out_channels) for _ in coarser)

    def smooth(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Convolve, fuse bottom-up and convolve L levels (B, C, T, H_l, W_l)."""
        finest, *coarser = super().smooth(levels)
        sums = [finest]
        for downsample, feat in zip(self.downsample_convs, coarser, strict=True):
            sums.append(feat + resize(downsample(sums[-1]), feat.shape[-2:]))
        fused = zip(self.pafpn_convs, sums[1:], strict=True)
        return [finest, *(conv(feat) for conv, feat in fused)]
