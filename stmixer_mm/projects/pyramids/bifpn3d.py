"""A feature pyramid of repeated, weighted fusions in both directions.

Shapes: B clips, C channels, T frames, L levels in, N levels out; levels are finest first.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import DepthwiseSeparableConvModule
from torch import Tensor, nn

from stmixer_mm.projects.pyramids.fpn3d import Pyramid3D, resize
from stmixer_mm.registry import MODELS


def fuse(feats: Sequence[Tensor], weights: Tensor, eps: float = 1e-4) -> Tensor:
    """ "Fast normalized fusion" of the EfficientDet paper, with weights (len(feats),)."""
    weights = weights.relu()
    weights = weights / (weights.sum() + eps)
    return sum(weight * feat for weight, feat in zip(weights, feats, strict=True))


def shrink(feat: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, T, H, W) max-pooled to (H, W) = ``size``: 3x3 with stride 2 where it fits."""
    half = tuple((cells + 1) // 2 for cells in feat.shape[-2:])
    if half == tuple(size):
        return F.max_pool3d(feat, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
    return resize(feat, size)


class WeightedFusion(nn.Module):
    """Weighted mean of levels, Swish, depthwise-separable convolution, norm.

    The depthwise kernel is 3x3 in space, and ``temporal_kernel`` in time.
    """

    def __init__(
        self,
        num_inputs: int,
        *,
        channels: int,
        temporal_kernel: int,
        norm_cfg: dict | None,
    ) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(num_inputs))
        self.conv = DepthwiseSeparableConvModule(
            channels,
            channels,
            (temporal_kernel, 3, 3),
            padding=(temporal_kernel // 2, 1, 1),
            conv_cfg=dict(type='Conv3d'),
            order=('act', 'conv', 'norm'),
            dw_norm_cfg=None,
            dw_act_cfg=dict(type='Swish'),
            pw_norm_cfg=norm_cfg,
            pw_act_cfg=None,
            inplace=False,
        )

    def forward(self, *feats: Tensor) -> Tensor:
        """``num_inputs`` levels (B, C, T, H, W) to one."""
        return self.conv(fuse(feats, self.weights))


class BiFPNLayer(nn.Module):
    """A way down and a way up, of the same fusions."""

    def __init__(self, num_levels: int, **fusion) -> None:
        super().__init__()
        # The coarsest level has no node on the way down.
        down, up = [2] * (num_levels - 1), [3] * (num_levels - 2) + [2]
        self.down, self.up = (
            nn.ModuleList(WeightedFusion(count, **fusion) for count in counts)
            for counts in (down, up)
        )

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """N levels (B, C, T, H_n, W_n) to as many of the same sizes."""
        nodes = [levels[-1]]
        for fusion, feat in zip(self.down, reversed(levels[:-1]), strict=True):
            nodes.append(fusion(feat, resize(nodes[-1], feat.shape[-2:])))
        finest, *coarser = reversed(nodes)
        outs = [finest]
        for fusion, feat, node in zip(self.up, levels[1:], coarser, strict=True):
            inputs = (feat,) if node is feat else (feat, node)
            outs.append(fusion(*inputs, shrink(outs[-1], feat.shape[-2:])))
        return outs


@MODELS.register_module()
class BiFPN3D(Pyramid3D):
    """Laterals, then repeated ways down and up that weigh what they fuse.

    Tan et al., "EfficientDet: Scalable and Efficient Object Detection", CVPR 2020. The
    further levels take part in the fusions. All convolutions have batch norm by default:
    without a norm, means and activations take most of the signal in a few repeats.

    Args:
        num_repeats: Ways down and up.
        **kwargs: See :class:`Pyramid3D`, all but ``act_cfg``.
    """

    def __init__(self, *, num_repeats: int = 3, **kwargs) -> None:
        super().__init__(**dict(norm_cfg=dict(type='BN3d')) | kwargs)
        self.layers = nn.ModuleList(
            BiFPNLayer(
                self.num_outs,
                channels=self.out_channels,
                temporal_kernel=self.temporal_kernel,
                norm_cfg=self.norm_cfg,
            )
            for _ in range(num_repeats)
        )

    def forward(self, feats: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """(B, in_channels[l], T, H_l, W_l) -> N levels (B, C, T, H_n, W_n)"""
        outs = self.extend(self.project(feats))
        for layer in self.layers:
            outs = layer(outs)
        return outs
