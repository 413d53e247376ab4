"""Feature pyramids that keep time.

Shapes: B clips, C channels, T frames, L levels in, N levels out; levels are finest first.
"""

from collections.abc import Sequence
from typing import Literal

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, caffe2_xavier_init, xavier_init
from torch import Tensor, nn

from stmixer_mm.errors import UserError
from stmixer_mm.models.necks.levels import (
    as_levels,
    check_channels,
    check_frames,
    resize,
)
from stmixer_mm.registry import MODELS


def top_down(levels: Sequence[Tensor], mode: str) -> list[Tensor]:
    """Add to every level what is coarser, of L levels (B, C, T, H_l, W_l)."""
    sums = [levels[-1]]
    for feat in reversed(levels[:-1]):
        sums.append(feat + resize(sums[-1], feat.shape[-2:], mode))
    return sums[::-1]


class Pyramid3D(BaseModule):
    """What all pyramids share: laterals of one width, and levels beyond the backbone's.

    Args:
        in_channels: Channels of the backbone's levels, finest first.
        out_channels: Channels of all levels afterwards.
        num_outs: N; None for as many as there are ``in_channels``. Each further level
            halves the size of the last.
        add_extra_convs: Make the further levels by convolutions with stride 2, the first
            of them on the backbone's last level ('on_input' or True), its lateral
            ('on_lateral') or the last output ('on_output'); False takes every second
            cell of the last output.
        relu_before_extra_convs: ReLU before each of these but the first.
        temporal_kernel: Frames of the kernels that are 3x3 in space; 1 treats frames
            alone.
        upsample: 'nearest' or 'trilinear'.
        norm_cfg: Norm after each convolution, such as ``dict(type='BN3d')``.
        act_cfg: Activation after each norm.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`; Xavier's by
            default.

    Raises:
        UserError: ``num_outs`` or ``temporal_kernel`` does not fit.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int | None = None,
        add_extra_convs: Literal[
            False, True, 'on_input', 'on_lateral', 'on_output'
        ] = False,
        relu_before_extra_convs: bool = False,
        temporal_kernel: int = 3,
        upsample: Literal['nearest', 'trilinear'] = 'nearest',
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.in_channels = tuple(in_channels)
        self.out_channels = out_channels
        self.num_outs = len(in_channels) if num_outs is None else num_outs
        self.add_extra_convs = (
            'on_input' if add_extra_convs is True else add_extra_convs
        )
        self.relu_before_extra_convs = relu_before_extra_convs
        self.temporal_kernel = temporal_kernel
        self.upsample = upsample
        self.norm_cfg = norm_cfg
        self.act_cfg = act_cfg
        if self.num_outs < len(in_channels) or temporal_kernel % 2 == 0:
            raise UserError(
                f'{type(self).__name__} has num_outs={self.num_outs} and temporal_kernel='
                f'{temporal_kernel}; give num_outs of {len(in_channels)}, as many as '
                'in_channels, or more, and an odd temporal_kernel.'
            )
        self.lateral_convs = nn.ModuleList(
            self.conv(channels, kernel_size=1) for channels in in_channels
        )

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

    def make_extra_convs(self) -> list[ConvModule]:
        """One per level beyond the backbone's, with stride 2."""
        if not self.add_extra_convs:
            return []
        widths = [self.out_channels] * (self.num_outs - len(self.in_channels))
        if widths and self.add_extra_convs == 'on_input':
            widths[0] = self.in_channels[-1]
        return [self.conv(channels, stride=2) for channels in widths]

    def init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d) and module.groups > 1:
                # Xavier's fan out counts all groups: a depthwise convolution would
                # take most of the signal.
                caffe2_xavier_init(module)
            elif isinstance(module, nn.Conv3d):
                xavier_init(module, distribution='uniform')
        super().init_weights()

    def check(self, feats: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """The levels as a list, if they can be fused."""
        levels = as_levels(feats)
        check_channels(levels, self)
        check_frames(levels, self)
        return levels

    def project(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """(B, in_channels[l], T, H_l, W_l) -> (B, C, T, H_l, W_l)"""
        return [
            conv(feat) for conv, feat in zip(self.lateral_convs, levels, strict=True)
        ]

    def extend(
        self,
        outs: Sequence[Tensor],
        extra_convs: Sequence[nn.Module],
        sources: dict[str, Tensor],
    ) -> list[Tensor]:
        """L levels and the further ones, N in all.

        Args:
            outs: L levels (B, C, T, H_l, W_l).
            extra_convs: See :meth:`make_extra_convs`.
            sources: Value of ``add_extra_convs`` to the level that the first is run on.
        """
        outs = list(outs)
        for level, conv in enumerate(extra_convs):
            feat = outs[-1] if level else sources[self.add_extra_convs]
            if level and self.relu_before_extra_convs:
                feat = feat.relu()
            outs.append(conv(feat))
        while len(outs) < self.num_outs:
            outs.append(outs[-1][..., ::2, ::2].contiguous())
        return outs


@MODELS.register_module()
class FPN3D(Pyramid3D):
    """Laterals, a top-down path, smoothing.

    Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017. Parameters
    are named as in mmdet's ``FPN``; at T = 1 with ``temporal_kernel=1`` its weights, with
    a dimension for time, give its values. Levels of any sizes fit. For the arguments see
    :class:`Pyramid3D`.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        smoothing = [self.conv(self.out_channels) for _ in self.in_channels]
        self.fpn_convs = nn.ModuleList([*smoothing, *self.make_extra_convs()])

    def forward(self, feats: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """(B, in_channels[l], T, H_l, W_l) -> N levels (B, out_channels, T, H_n, W_n)"""
        levels = self.check(feats)
        laterals = top_down(self.project(levels), self.upsample)
        outs = self.smooth(laterals)
        sources = dict(on_input=levels[-1], on_lateral=laterals[-1], on_output=outs[-1])
        return self.extend(outs, self.fpn_convs[len(levels) :], sources)

    def smooth(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Convolve each of L levels (B, C, T, H_l, W_l)."""
        convs = self.fpn_convs[: len(levels)]
        return [conv(feat) for conv, feat in zip(convs, levels, strict=True)]
