"""One stage of deformable DETR's decoder, for both query sets.

Shapes: B clips, Q queries, C channels, G heads, M planes (frames of levels), N cells
of all planes, P points of a head in a plane.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmcv.cnn.bricks.transformer import FFN, MultiheadAttention
from mmcv.ops import MultiScaleDeformableAttention
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from stmixer_mm.models.boxes import box_size, sine_position_code
from stmixer_mm.models.decoder.stage import Queries, QueryStage, StageOutput
from stmixer_mm.models.precision import full_precision
from stmixer_mm.models.strides import level_extents
from stmixer_mm.projects.deformable.plane_attention import (
    PlaneLayout,
    attend,
    lay_out_planes,
)


class FlatPlanes(NamedTuple):
    """Cells of M planes, one after the other; each frame of a level is a plane."""

    values: Tensor  # (B, N, C)
    layout: PlaneLayout
    extents: Tensor  # (M, 2): w, h in pixels


class DeformableMemory(NamedTuple):
    """Planes that the two query sets read."""

    spatial: FlatPlanes
    temporal: FlatPlanes


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
        spatial_planes: M of the spatial queries.
        temporal_planes: M of the temporal queries.
        **branch: See :class:`DeformableBranch`.
    """

    def __init__(
        self,
        *,
        embed_dims: int,
        num_actions: int,
        spatial_planes: int,
        temporal_planes: int,
        **branch,
    ) -> None:
        super().__init__(embed_dims=embed_dims, num_actions=num_actions)
        self.spatial, self.temporal = (
            DeformableBranch(embed_dims=embed_dims, num_planes=num_planes, **branch)
            for num_planes in (spatial_planes, temporal_planes)
        )

    def forward(
        self,
        queries: Queries,
        boxes_xyzr: Tensor,
        memory: DeformableMemory,
        blocked: Tensor | None = None,
    ) -> tuple[Queries, Tensor, StageOutput]:
        """See :meth:`QueryStage.forward`."""
        spatial, temporal = queries
        position_code = sine_position_code(boxes_xyzr.detach(), spatial.size(-1))
        where = position_code, boxes_xyzr
        spatial = self.spatial(spatial, *where, memory.spatial, blocked)
        temporal = self.temporal(temporal, *where, memory.temporal, blocked)
        return self.refine(Queries(spatial, temporal), boxes_xyzr)


class DeformableBranch(BaseModule):
    """The decoder layer of one query set, as mmdet's of deformable DETR.

    Parameters have the same names.

    Args:
        embed_dims: C.
        num_heads: G, heads of both attentions.
        feedforward_channels: Hidden width of the feed-forward network.
        num_planes: M.
        num_points: P.
        dropout: Of attentions and feed-forward network.
    """

    def __init__(
        self,
        *,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        num_planes: int,
        num_points: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(
            embed_dims,
            num_heads,
            attn_drop=dropout,
            dropout_layer=dict(type='Dropout', drop_prob=dropout),
            batch_first=True,
        )
        self.cross_attn = DeformableAttention(
            embed_dims=embed_dims,
            num_heads=num_heads,
            num_levels=num_planes,
            num_points=num_points,
            dropout=dropout,
            batch_first=True,
        )
        self.ffn = FFN(embed_dims, feedforward_channels, ffn_drop=dropout)
        self.norms = ModuleList(nn.LayerNorm(embed_dims) for _ in range(3))

    def init_weights(self) -> None:
        super().init_weights()
        # It claims to be initialised, so that mmengine skips it.
        self.cross_attn.init_weights()

    def forward(
        self,
        queries: Tensor,
        position_code: Tensor,
        boxes_xyzr: Tensor,
        planes: FlatPlanes,
        blocked: Tensor | None = None,
    ) -> Tensor:
        """Queries (B, Q, C) to queries; ``blocked`` as in :class:`QueryStage`."""
        if blocked is not None and blocked.dim() == 3:  # PyTorch wants it for each head
            blocked = blocked.repeat_interleave(self.self_attn.num_heads, dim=0)
        attended = self.self_attn(queries, query_pos=position_code, attn_mask=blocked)
        queries = self.norms[0](attended)
        read = self.cross_attn(queries, position_code, boxes_xyzr, planes)
        queries = self.norms[1](read)
        return self.norms[2](self.ffn(queries))


class DeformableAttention(MultiScaleDeformableAttention):
    """mmcv's, from boxes to flat planes.

    It samples in float32, under autocast too: mmcv's CUDA operator takes no bfloat16,
    and rounds positions to the type of the values. Where mmcv was compiled without the
    operator, its formulation in PyTorch serves on GPUs as well.
    """

    def forward(
        self,
        queries: Tensor,
        position_code: Tensor,
        boxes_xyzr: Tensor,
        planes: FlatPlanes,
    ) -> Tensor:
        """
        Args:
            queries: (B, Q, C)
            position_code: (B, Q, C)
            boxes_xyzr: (B, Q, 4)
            planes: M of them.

        Returns:
            The queries and what they read, (B, Q, C).
        """
        coded = queries + position_code
        # (B, Q, G, M, P, 2)
        offsets = self.sampling_offsets(coded).unflatten(
            -1, (self.num_heads, self.num_levels, self.num_points, 2)
        )
        weights = self.attention_weights(coded).unflatten(-1, (self.num_heads, -1))
        weights = full_precision(weights).softmax(dim=-1)
        values = full_precision(self.value_proj(planes.values))
        read = attend(
            values.unflatten(-1, (self.num_heads, -1)),
            planes.layout,
            place_points(offsets, boxes_xyzr, planes.extents),
            weights.unflatten(-1, (self.num_levels, self.num_points)),
        )
        return queries + self.dropout(self.output_proj(read))


def flatten_feats(feats: Sequence[Tensor], strides: Sequence[float]) -> FlatPlanes:
    """Every frame of every level as a plane: level by level, within it frame by frame.

    Args:
        feats: Levels (B, C, T, H_l, W_l).
        strides: Pixels per cell of each.
    """
    sizes = [tuple(feat.shape[-2:]) for feat in feats]
    extents = level_extents(sizes, strides, full_precision(feats[0]))
    num_frames = feats[0].size(2)
    return FlatPlanes(
        values=torch.cat([feat.flatten(2) for feat in feats], dim=-1).transpose(1, 2),
        layout=lay_out_planes(
            [size for size in sizes for _frame in range(num_frames)], extents.device
        ),
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
