"""The feature map of a UniFormerV2, whose host returns one vector per clip.

Shapes: B clips, T frames, P = h * w patches of a frame, C channels.
"""

from math import isqrt

import torch
from mmaction.models.backbones.uniformerv2 import UniFormerV2
from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.models.backbones.hosted import HostedBackbone
from stmixer_mm.models.backbones.positions import resize_positions
from stmixer_mm.registry import MODELS

GLOBAL_MODULES = ('temporal_cls_token', 'dpe', 'dec', 'norm', 'balance', 'sigmoid')


@MODELS.register_module()
class UniFormerV2Map(HostedBackbone):
    """Patch tokens of the last local block as a feature map.

    Li et al., "UniFormerV2: Spatiotemporal Learning by Arming Image ViTs with Video
    UniFormer", ICCV 2023, without its global blocks, which pool a clip into one vector:
    an image transformer and, with ``no_lmhra=False``, convolutions over time. The
    positions are resized to the frames.

    Args:
        backbone: Config of a :class:`mmaction.models.UniFormerV2`.
        init_cfg: Initialisation, see :class:`.HostedBackbone`.

    Raises:
        UserError: The backbone is another one, or cannot take frames of this shape.
    """

    host_class = UniFormerV2
    backbone: UniFormerV2

    def __init__(self, *, backbone: dict, init_cfg: dict | list | None = None) -> None:
        super().__init__(backbone=backbone, init_cfg=init_cfg)
        for name in GLOBAL_MODULES:
            delattr(self.backbone.transformer, name)

    def forward(self, clips: Tensor) -> tuple[Tensor]:
        """(B, 3, T_in, H, W) -> (B, C, T, h, w)

        T is T_in, or half of it with ``temporal_downsample``.
        """
        host = self.backbone
        feat = host.conv1(clips)
        batch_size, _, frames, *grid = feat.shape
        blocks = host.transformer.resblocks
        num_patches = grid[0] * grid[1]
        if isqrt(num_patches) ** 2 != num_patches and not blocks[0].no_lmhra:
            raise UserError(
                f'UniFormerV2 with no_lmhra=False takes square frames, but these have '
                f'{grid[0]}x{grid[1]} patches; resize the clips to squares or set '
                'no_lmhra=True.'
            )
        side = host.input_resolution // host.conv1.kernel_size[-1]
        table = host.positional_embedding.unsqueeze(0)
        positions = resize_positions(table[:, 1:], (side, side), tuple(grid))
        patches = feat.flatten(3).permute(0, 2, 3, 1).flatten(0, 1) + positions
        token = (host.class_embedding + table[:, :1]).expand(patches.size(0), -1, -1)
        # (1 + P, B * T, C), as the blocks take them
        tokens = host.ln_pre(torch.cat((token, patches), dim=1)).transpose(0, 1)
        for block in blocks:
            tokens = block(tokens, frames)
        by_frame = tokens[1:].unflatten(1, (batch_size, frames)).unflatten(0, grid)
        return (by_frame.permute(2, 4, 3, 0, 1),)
