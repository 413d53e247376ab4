"""The feature map of a TimeSformer, whose host returns its class token.

Shapes: B clips, T frames, P = h * w patches of a frame, C channels.
"""

from collections.abc import Sequence

import torch
from mmaction.models.backbones.timesformer import TimeSformer
from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.models.backbones.hosted import HostedBackbone
from stmixer_mm.models.backbones.positions import resize_positions
from stmixer_mm.registry import MODELS


def patch_grid(size: Sequence[int], patch: Sequence[int]) -> tuple[int, int]:
    """Patches down and across of frames (h, w)."""
    return size[0] // patch[0], size[1] // patch[1]


@MODELS.register_module()
class TimeSformerMap(HostedBackbone):
    """Patch tokens of the last layer as a feature map.

    Bertasius et al., "Is Space-Time Attention All You Need for Video Understanding?",
    ICML 2021. All three types of attention; the positions are resized to the frames.

    Args:
        backbone: Config of a :class:`mmaction.models.TimeSformer`.
        init_cfg: Initialisation, see :class:`.HostedBackbone`.

    Raises:
        UserError: The backbone is another one, or made for another number of frames.
    """

    host_class = TimeSformer
    backbone: TimeSformer

    def forward(self, clips: Tensor) -> tuple[Tensor]:
        """(B, 3, T, H, W) -> (B, C, T, h, w)"""
        host, (batch_size, _, frames) = self.backbone, clips.shape[:3]
        if frames != host.num_frames:
            raise UserError(
                f'TimeSformer has num_frames={host.num_frames} but the clips have '
                f'{frames} frames; set num_frames={frames} or change the clip length.'
            )
        grid = patch_grid(clips.shape[-2:], host.patch_embed.patch_size)
        tokens = self.embed(clips, grid)
        if host.attention_type == 'space_only':
            tokens = host.norm(host.transformer_layers(tokens, None, None))
            by_frame = tokens[:, 1:].unflatten(0, (batch_size, frames))
            return (by_frame.unflatten(2, grid).permute(0, 4, 1, 2, 3),)
        # Positions in time next to each other: (B, P * T, C).
        patches = tokens[:, 1:].unflatten(0, (batch_size, frames)).transpose(1, 2)
        patches = host.drop_after_time(patches + host.time_embed).flatten(1, 2)
        tokens = torch.cat((tokens[::frames, :1], patches), dim=1)
        tokens = host.norm(host.transformer_layers(tokens, None, None))
        by_place = tokens[:, 1:].unflatten(1, (*grid, frames))
        return (by_place.permute(0, 4, 3, 1, 2),)

    def embed(self, clips: Tensor, grid: tuple[int, int]) -> Tensor:
        """Class token and patches of each frame with their positions, (B * T, 1 + P, C)"""
        host = self.backbone
        embed = host.patch_embed
        table_grid = patch_grid(embed.img_size, embed.patch_size)
        positions = resize_positions(host.pos_embed[:, 1:], table_grid, grid)
        patches = embed(clips) + positions
        token = (host.cls_token + host.pos_embed[:, :1]).expand(patches.size(0), -1, -1)
        return host.drop_after_pos(torch.cat((token, patches), dim=1))
