"""Feature pyramids that keep time.

Shapes: B clips, C channels, T frames, L levels in, N levels out; levels are finest first.
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, xavier_init
from torch import Tensor, nn

from stmixer_mm.models.necks.levels import as_levels, check_channels
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class FPN3D(BaseModule):
    """Laterals, a top-down path, smoothing.

    Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017. Parameters
    are named as in mmdet's ``FPN``; at T = 1 with ``temporal_kernel=1`` its weights, with
    a dimension for time, give its values. Levels of any sizes fit.

    Args:
        in_channels: Channels of the backbone's levels, finest first.
        out_channels: C, channels of all levels afterwards.
        num_outs: N; None for as many as there are ``in_channels``. Each further level
            takes every second cell of the last.
        add_extra_convs: 'on_output' makes the further levels by convolutions with
            stride 2, each on the last output.
        temporal_kernel: Frames of the kernels that are 3x3 in space, an odd number; 1
            treats frames alone.
        norm_cfg: Norm after each convolution, such as ``dict(type='BN3d')``.
        act_cfg: Activation after each norm.
    """

    # A stream may look at the layers for those that see several frames.
    only_layers_join_frames = True

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int | None = None,
        add_extra_convs: Literal[False, 'on_output'] = False,
        temporal_kernel: int = 3,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = tuple(in_channels)
        self.out_channels = out_channels
        self.num_outs = len(in_channels) if num_outs is None else num_outs
        self.temporal_kernel = temporal_kernel
        self.norm_cfg = norm_cfg
        self.act_cfg = act_cfg
        self.lateral_convs = nn.ModuleList(
            self.conv(channels, kernel_size=1) for channels in in_channels
        )
        self.fpn_convs = nn.ModuleList(self.conv(out_channels) for _ in in_channels)
        if add_extra_convs:
            further = range(self.num_outs - len(in_channels))
            self.fpn_convs.extend(self.conv(out_channels, stride=2) for _ in further)

    def conv(
        self, in_channels: int, *, kernel_size: int = 3, stride: int = 1
    ) -> ConvModule:
        """Convolution, norm and activation; ``kernel_size`` and ``stride`` of space."""
        frames = self.temporal_kernel if kernel_size > 1 else 1
        return ConvModule(
            in_channels,
            self.out_channels,
            (frames, kernel_size, kernel_size),
            stride=(1, stride, stride),
            padding=(frames // 2, kernel_size // 2, kernel_size // 2),
            conv_cfg=dict(type='Conv3d'),
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
            inplace=False,
        )

    def init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                xavier_init(module, distribution='uniform')
        super().init_weights()

    def forward(self, feats: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """(B, in_channels[l], T, H_l, W_l) -> N levels (B, C, T, H_n, W_n)"""
        levels = as_levels(feats)
        check_channels(levels, self)
        lateral_pairs = zip(self.lateral_convs, levels, strict=True)
        laterals = [conv(feat) for conv, feat in lateral_pairs]
        sums = laterals[-1:]
        for feat in reversed(laterals[:-1]):
            sums.append(feat + resize(sums[-1], feat.shape[-2:]))
        outs = self.smooth(sums[::-1])
        for conv in self.fpn_convs[len(outs) :]:
            outs.append(conv(outs[-1]))
        while len(outs) < self.num_outs:
            outs.append(outs[-1][..., ::2, ::2].contiguous())
        return outs

    def smooth(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Convolve each of L levels (B, C, T, H_l, W_l)."""
        convs = self.fpn_convs[: len(levels)]
        return [conv(feat) for conv, feat in zip(convs, levels, strict=True)]


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


def resize(feat: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, T, H, W) to (H, W) = ``size``, frame by frame.

    A side that is too long is max-pooled, one that is too short repeats its cells.
    """
    size, feat_size = tuple(size), tuple(feat.shape[-2:])
    if feat_size == size:
        return feat
    planes = feat.flatten(1, 2)
    pooled = tuple(map(min, feat_size, size))
    if pooled != feat_size:
        planes = F.adaptive_max_pool2d(planes, pooled)
    if pooled != size:
        planes = F.interpolate(planes, size)
    return planes.unflatten(1, feat.shape[1:3])
