"""A baseline: deformable DETR's decoder on feature maps of clips.

Shapes: C channels, T frames, L levels.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn

from stmixer_mm.errors import UserError
from stmixer_mm.models.decoder.query_decoder import QueryDecoder
from stmixer_mm.projects.deformable.deformable_stage import (
    DeformableStage,
    FlatPlanes,
    flatten_feats,
)
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class DeformableDecoder(QueryDecoder):
    """Refine learned queries by deformable attention to the levels, in several stages.

    Zhu et al., "Deformable DETR: Deformable Transformers for End-to-End Object
    Detection", ICLR 2021: its decoder with iterative box refinement, on the neck's
    levels themselves, without its encoder. Spatial queries read the keyframe, temporal
    queries what ``memory`` says.

    Args:
        num_frames: T of the feature maps.
        num_levels: L.
        memory: What the temporal queries read: 'keyframe', or 'time' for all frames,
            T * L planes with sample points in each.
        num_points: Sample points of a head in a plane, which is a frame of a level.
        **kwargs: See :class:`QueryDecoder`; ``num_heads`` are those of both attentions.
    """

    def __init__(
        self,
        *,
        num_frames: int,
        num_levels: int = 4,
        memory: Literal['keyframe', 'time'] = 'keyframe',
        num_points: int = 4,
        **kwargs,
    ) -> None:
        frames_read = num_frames if memory == 'time' else 1
        make_stage = partial(
            DeformableStage,
            num_planes=(num_levels, num_levels * frames_read),
            num_points=num_points,
        )
        super().__init__(make_stage=make_stage, num_frames=num_frames, **kwargs)
        self.num_levels = num_levels
        self.level_embeds = nn.Embedding(num_levels, self.embed_dims)
        self.frame_embeds = None
        if memory == 'time':
            self.frame_embeds = nn.Embedding(num_frames, self.embed_dims)

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.normal_(self.level_embeds.weight)
        if self.frame_embeds is not None:
            nn.init.normal_(self.frame_embeds.weight)

    def make_memory(
        self, feats: Sequence[Tensor], strides: Sequence[float]
    ) -> tuple[FlatPlanes, FlatPlanes]:
        """The keyframe, and what the temporal queries read."""
        key = self.num_frames // 2
        feats = [
            feat + embed.view(-1, 1, 1, 1)
            for feat, embed in zip(feats, self.level_embeds.weight, strict=True)
        ]
        keyframe = flatten_feats([feat[:, :, key : key + 1] for feat in feats], strides)
        if self.frame_embeds is None:
            return keyframe, keyframe
        frame_embeds = self.frame_embeds.weight.t()[..., None, None]
        return keyframe, flatten_feats([feat + frame_embeds for feat in feats], strides)

    def strides_of(
        self, feats: Sequence[Tensor], pad_shape: tuple[int, int]
    ) -> Sequence[float]:
        if len(feats) != self.num_levels:
            raise UserError(
                f'The neck yields {len(feats)} levels but the decoder has num_levels='
                f'{self.num_levels}; set model.decoder.num_levels={len(feats)}.'
            )
        return super().strides_of(feats, pad_shape)
