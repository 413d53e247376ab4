"""One stage of deformable DETR's decoder, for both query sets.

Shapes: B clips, Q queries, C channels, G heads, M planes (frames of levels), N cells
of all planes, P points of a head in a plane.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.layers import DeformableDetrTransformerDecoderLayer
from torch import Tensor

from stmixer_mm.compat import stack_numbers
from stmixer_mm.models.boxes import box_size, position_wavelengths, sine_position_code
from stmixer_mm.models.decoder.sampling.deformable_attention import (
    PlaneLayout,
    attend,
    lay_out_planes,
)
from stmixer_mm.models.decoder.stage import QueryStage
from stmixer_mm.models.precision import full_precision
from stmixer_mm.models.strides import level_sides
from stmixer_mm.structures import Queries


class FlatPlanes(NamedTuple):
    """Cells of M planes, one after the other; each frame of a level is a plane."""

    values: Tensor  # (B, N, C)
    layout: PlaneLayout
    extents: Tensor  # (M, 2): w, h in pixels


class DeformableStage(QueryStage):
    """Attend among queries, attend to points of the planes, refine.

    Zhu et al., "Deformable DETR: Deformable Transformers for End-to-End Object
    Detection", ICLR 2021, with boxes as reference; a decoder layer for each query set.
    Queries carry the sine code of their boxes where the paper has learned codes.

    Boxes keep their gradient from stage to stage, as :class:`STMixerStage`'s do, while
    the paper cuts it: the two decoders then differ only in how queries read feature
    maps. Only the position code reads boxes without gradient.

    Args:
        embed_dims: C, a multiple of 8 and of ``num_heads``.
        num_actions: Number of actions.
        num_heads: G, heads of both attentions.
        feedforward_channels: Hidden width of the feed-forward networks.
        num_planes: M of the spatial and of the temporal queries.
        num_points: P.
    """

    def __init__(
        self,
        *,
        embed_dims: int,
        num_actions: int,
        num_heads: int,
        feedforward_channels: int,
        num_planes: tuple[int, int],
        num_points: int,
    ) -> None:
        super().__init__(embed_dims=embed_dims, num_actions=num_actions)
        wavelengths = position_wavelengths(embed_dims)
        self.register_buffer('wavelengths', wavelengths, persistent=False)
        self.num_heads = num_heads
        widths = dict(embed_dims=embed_dims, num_heads=num_heads)
        self.spatial, self.temporal = (
            DeformableLayer(
                self_attn_cfg=dict(widths),
                cross_attn_cfg=dict(
                    widths, num_levels=planes, num_points=num_points, dropout=0.0
                ),
                ffn_cfg=dict(
                    embed_dims=embed_dims, feedforward_channels=feedforward_channels
                ),
            )
            for planes in num_planes
        )

    def update(
        self,
        queries: Queries,
        boxes_xyzr: Tensor,
        memory: tuple[FlatPlanes, FlatPlanes],
        blocked: Tensor | None,
    ) -> Queries:
        """See :meth:`QueryStage.forward`; ``memory`` is what each query set reads."""
        if blocked is not None:  # PyTorch wants it for each head
            blocked = blocked.repeat_interleave(self.num_heads, dim=0)
        position_code = sine_position_code(boxes_xyzr.detach(), self.wavelengths)
        shared = dict(
            query_pos=position_code, self_attn_mask=blocked, boxes_xyzr=boxes_xyzr
        )
        return Queries(
            self.spatial(queries.spatial, planes=memory[0], **shared),
            self.temporal(queries.temporal, planes=memory[1], **shared),
        )


class DeformableLayer(DeformableDetrTransformerDecoderLayer):
    """mmdet's layer, with the attention below."""

    def _init_layers(self) -> None:
        super()._init_layers()
        self.cross_attn = DeformableAttention(**self.cross_attn_cfg)

    def init_weights(self) -> None:
        super().init_weights()
        # It claims to be initialised, so that mmengine skips it.
        self.cross_attn.init_weights()


class DeformableAttention(MultiScaleDeformableAttention):
    """mmcv's, from boxes to flat planes, in PyTorch.

    It samples in float32, under autocast too: positions would be rounded.
    """

    def forward(
        self,
        query: Tensor,
        *,
        query_pos: Tensor,
        boxes_xyzr: Tensor,
        planes: FlatPlanes,
        **_of_the_host,
    ) -> Tensor:
        """Queries and what they read, (B, Q, C).

        Args:
            query: (B, Q, C)
            query_pos: Their position code, (B, Q, C).
            boxes_xyzr: (B, Q, 4)
            planes: M of them.
        """
        coded = query + query_pos
        # (B, Q, G, M, P, 2)
        offsets = self.sampling_offsets(coded).unflatten(
            -1, (self.num_heads, self.num_levels, self.num_points, 2)
        )
        weights = self.attention_weights(coded).unflatten(-1, (self.num_heads, -1))
        weights = full_precision(weights).softmax(dim=-1)
        values = full_precision(self.value_proj(planes.values))
        sampled_values = attend(
            values.unflatten(-1, (self.num_heads, -1)),
            planes.layout,
            place_points(offsets, boxes_xyzr, planes.extents),
            weights.unflatten(-1, (self.num_levels, self.num_points)),
        )
        return query + self.output_proj(sampled_values)


def flatten_feats(feats: Sequence[Tensor], strides: Sequence[float]) -> FlatPlanes:
    """Every frame of every level as a plane: level by level, within it frame by frame.

    Args:
        feats: Levels (B, C, T, H_l, W_l).
        strides: Pixels per cell of each.
    """
    sizes = [tuple(feat.shape[-2:]) for feat in feats]
    extents = level_extents(sizes, strides, full_precision(feats[0]))
    num_frames = feats[0].size(2)
    planes = [size for size in sizes for _frame in range(num_frames)]
    return FlatPlanes(
        values=torch.cat([feat.flatten(2) for feat in feats], dim=-1).transpose(1, 2),
        layout=lay_out_planes(planes, feats[0].device),
        extents=extents.repeat_interleave(num_frames, dim=0),
    )


def place_points(offsets: Tensor, boxes_xyzr: Tensor, extents: Tensor) -> Tensor:
    """Points relative to their boxes (deformable DETR, appendix A.4).

    Args:
        offsets: (dx, dy), of which P reach from the centre to the box's edge,
            (B, Q, G, M, P, 2).
        boxes_xyzr: (B, Q, 4)
        extents: (w, h) of each plane in pixels, (M, 2).

    Returns:
        (x, y) in units of each plane's extent, (B, Q, G, M, P, 2).
    """
    centre, half = full_precision(boxes_xyzr)[..., :2], box_size(boxes_xyzr) / 2
    centre, half = (
        (values.unsqueeze(2) / extents)[:, :, None, :, None]
        for values in (centre, half)
    )  # (B, Q, 1, M, 1, 2)
    return centre + full_precision(offsets) * half / offsets.size(-2)


def level_extents(
    sizes: Sequence[tuple[int, int]], strides: Sequence[float], like: Tensor
) -> Tensor:
    """(w, h) in pixels of L levels of (h, w) cells, (L, 2)."""
    sides = level_sides(sizes, strides)
    return stack_numbers(sides, dtype=like.dtype, device=like.device).view(-1, 2)
