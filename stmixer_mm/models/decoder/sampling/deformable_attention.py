"""Both means as mmcv's multi-scale deformable attention: its CUDA op serves.

Shapes: as in :mod:`.sampler`.
"""

from math import gcd

import torch
from mmcv.ops import get_compiling_cuda_version
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from torch import Tensor

from stmixer_mm.models.decoder.sampling.sampler import Sampler


class DeformableAttentionSampler(Sampler):
    """Sampling and averaging are linear, so that both means are attentions.

    The mean over frames is one sample of the time-mean of the maps, each point a
    query of its own; the mean over points is an attention with weights / P.
    """

    @classmethod
    def is_available(cls, device: torch.device) -> bool:
        # mmcv's op is there for CUDA, if mmcv was compiled with it.
        return device.type == 'cuda' and get_compiling_cuda_version() != 'not available'

    def lay_out(self, feats: list[Tensor]) -> None:
        self.sizes = torch.tensor(self.map_sizes, device=feats[0].device)
        areas = self.sizes.prod(dim=1)
        self.level_starts = areas.cumsum(0) - areas
        cells = torch.cat([feat.flatten(3).to(self.dtype) for feat in feats], dim=-1)
        self.frame_table = self.as_values(cells)
        self.mean_table = self.as_values(cells.mean(dim=2, keepdim=True))

    def as_values(self, cells: Tensor) -> Tensor:
        """(B, C, T, cells of all levels) -> (B, T, cells of all levels, G, c)"""
        channels_last = cells.permute(0, 2, 3, 1)
        return channels_last.unflatten(-1, (self.num_groups, -1)).contiguous()

    def means(self, points_xy: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        _batch, queries, _groups, points, _ = points_xy.shape
        locations = self.normalise(points_xy).transpose(3, 4)
        weights = weights.transpose(3, 4)

        def a_query_each(per_point: Tensor) -> Tensor:
            """(B, Q, G, L, P, ...) -> (B, Q * P, G, L, 1, ...)"""
            return per_point.movedim(4, 2).flatten(1, 2).unsqueeze(4)

        spatial = self.attend(
            self.mean_table, a_query_each(locations), a_query_each(weights)
        )
        temporal = self.attend(self.frame_table, locations, weights / points)
        return (
            spatial.squeeze(1).unflatten(1, (queries, points)).transpose(2, 3),
            temporal.permute(0, 2, 3, 1, 4),
        )

    def attend(self, table: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        """
        Args:
            table: (B, frames, cells of all levels, G, c).
            locations: [0, 1] of the levels' extents, (B, queries, G, L, points, 2).
            weights: (B, queries, G, L, points).

        Returns:
            (B, frames, queries, G, c)
        """
        batch, frames = table.shape[:2]
        values = table.flatten(0, 1)
        locations = locations.repeat_interleave(frames, dim=0).contiguous()
        weights = weights.repeat_interleave(frames, dim=0).contiguous()
        if values.is_cuda:
            # The op wants a step that divides its batch.
            step = gcd(len(values), 64)
            out = MultiScaleDeformableAttnFunction.apply(
                values, self.sizes, self.level_starts, locations, weights, step
            )
        else:
            out = multi_scale_deformable_attn_pytorch(
                values, self.sizes, locations, weights
            )
        return out.unflatten(0, (batch, frames)).unflatten(-1, (self.num_groups, -1))
