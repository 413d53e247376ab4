"""SlowFast with the feature maps of all four stages, both pathways fused."""

from collections.abc import Sequence

import torch
from mmaction.models.backbones.resnet3d import ResNet3d
from mmaction.models.backbones.resnet3d_slowfast import ResNet3dSlowFast
from mmengine.model import BaseModule
from torch import Tensor, nn

from stmixer_mm.registry import MODELS

SPEED_RATIO = 4  # fast frames per slow frame
CHANNEL_RATIO = 8  # slow channels per fast channel


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


@MODELS.register_module()
class ResNet3dSlowFastPyramid(ResNet3dSlowFast):
    """The host's SlowFast, as STMixer's release uses it.

    Differs from :class:`mmaction.models.ResNet3dSlowFast`: the slow pathway sees
    frames spread evenly from the first to the last one, every stage yields a level, and
    non-local blocks may follow blocks of the slow pathway's third stage.

    Args:
        depth: Depth of both pathways, 50, 101 or 152.
        fusion_kernel: Temporal kernel of the lateral (fast to slow) convolutions.
        non_local_blocks: Blocks of the slow pathway's res4 (from 0) that a non-local
            block follows.
        norm_eval, with_cp, frozen_stages: Of both pathways, see the host's ``ResNet3d``.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.
    """

    def __init__(
        self,
        *,
        depth: int = 50,
        fusion_kernel: int = 7,
        non_local_blocks: Sequence[int] = (),
        norm_eval: bool = False,
        with_cp: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | list | None = None,
    ) -> None:
        shared = dict(
            type='resnet3d',
            depth=depth,
            pretrained=None,
            conv1_stride_t=1,
            pool1_stride_t=1,
            with_pool2=False,
            norm_eval=norm_eval,
            with_cp=with_cp,
            frozen_stages=frozen_stages,
        )
        # Deeper nets have temporal kernels in the blocks that ResNet-50 has.
        num_res4_blocks = ResNet3d.arch_settings[depth][1][2]
        inflate_res4 = tuple(int(block < 6) for block in range(num_res4_blocks))
        super().__init__(
            resample_rate=SPEED_RATIO,
            speed_ratio=SPEED_RATIO,
            channel_ratio=CHANNEL_RATIO,
            slow_pathway=dict(
                **shared,
                lateral=True,
                lateral_norm=True,
                fusion_kernel=fusion_kernel,
                conv1_kernel=(1, 7, 7),
                inflate=(0, 0, inflate_res4, 1),
            ),
            fast_pathway=dict(
                **shared,
                lateral=False,
                base_channels=64 // CHANNEL_RATIO,
                conv1_kernel=(5, 7, 7),
                inflate=(1, 1, inflate_res4, 1),
            ),
            init_cfg=init_cfg,
        )
        for index in non_local_blocks:
            block = self.slow_path.layer3[index]
            block.non_local = True
            block.non_local_block = NonLocalBlock3D(block.conv3.out_channels)
        self.fuse_fast = nn.MaxPool3d(kernel_size=(SPEED_RATIO, 1, 1))

    def init_weights(self) -> None:
        super().init_weights()
        # The host sets every batch norm to 1, those of the non-local blocks too.
        for module in self.modules():
            if isinstance(module, NonLocalBlock3D):
                module.init_weights()

    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            clips: (B, 3, T_in, H, W), T_in a multiple of 4.

        Returns:
            Four levels (B, slow + fast channels, T_in / 4, H_l, W_l) at strides 4, 8,
            16, 32.
        """
        slow_path, fast_path = self.slow_path, self.fast_path
        slow = slow_path.maxpool(slow_path.conv1(self.slow_frames(clips)))
        fast = fast_path.maxpool(fast_path.conv1(clips))
        laterals = ['conv1_lateral', *slow_path.lateral_connections]
        feats = []
        for lateral, layer in zip(laterals, slow_path.res_layers, strict=True):
            slow = torch.cat((slow, getattr(slow_path, lateral)(fast)), dim=1)
            slow = getattr(slow_path, layer)(slow)
            fast = getattr(fast_path, layer)(fast)
            feats.append(torch.cat((slow, self.fuse_fast(fast)), dim=1))
        return tuple(feats)

    def slow_frames(self, clips: Tensor) -> Tensor:
        """Every fourth frame on average, both ends included."""
        frames = clips.size(2)
        num_slow = frames // SPEED_RATIO
        # Integers, since floor of a rounded linspace may be one less.
        indices = [i * (frames - 1) // max(num_slow - 1, 1) for i in range(num_slow)]
        return clips[:, :, indices]
