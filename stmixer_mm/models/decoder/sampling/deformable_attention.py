"""mmcv's multi-scale deformable attention, and both means of samples by it.

Shapes: B clips, Q queries, G heads, c channels of a head, M planes, N cells of all
planes, P points of a head in a plane.
"""

from collections.abc import Sequence
from itertools import chain
from math import gcd
from typing import NamedTuple

import torch
from mmcv.ops import get_compiling_cuda_version
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from torch import Tensor

from stmixer_mm.compat import constant_in_graphs, stack_numbers
from stmixer_mm.models.decoder.sampling.sampler import Sampler


@constant_in_graphs
def has_cuda_op() -> bool:
    """True if mmcv was compiled with CUDA."""
    return get_compiling_cuda_version() != 'not available'


class PlaneLayout(NamedTuple):
    """The layout of the cells of M planes, which lie one after the other."""

    sizes: tuple[tuple[int, int], ...]  # h, w in cells
    sizes_tensor: Tensor  # (M, 2): the same on the device of the values
    starts: Tensor  # (M,): number of a plane's first cell


def lay_out_planes(
    sizes: Sequence[tuple[int, int]], device: torch.device
) -> PlaneLayout:
    cells = stack_numbers(chain(*sizes), dtype=torch.int64, device=device)
    sizes_tensor = cells.view(-1, 2)
    areas = sizes_tensor.prod(dim=1)
    return PlaneLayout(tuple(sizes), sizes_tensor, areas.cumsum(0) - areas)


def attend(
    values: Tensor, layout: PlaneLayout, points: Tensor, weights: Tensor
) -> Tensor:
    """Weighted sums of bilinear samples of M planes; zero outside them.

    mmcv's operator on CUDA, its formulation in PyTorch elsewhere.

    Args:
        values: Cells of all planes, (B, N, G, c).
        layout: Of the planes.
        points: (x, y) in [0, 1] of the planes' extents, (B, Q, G, M, P, 2).
        weights: (B, Q, G, M, P)

    Returns:
        (B, Q, G * c)
    """
    if not (values.is_cuda and has_cuda_op()):
        return multi_scale_deformable_attn_pytorch(
            values, layout.sizes, points, weights
        )
    return MultiScaleDeformableAttnFunction.apply(
        values.contiguous(),
        layout.sizes_tensor,
        layout.starts,
        points.contiguous(),
        weights.contiguous(),
        gcd(len(values), 64),  # it wants a step that divides its batch
    )


class DeformableAttentionSampler(Sampler):
    """Sampling and averaging are linear, so that both means are attentions.

    The mean over frames is one sample of the time-mean of the levels, each point a
    query of its own; the mean over points is an attention with weights / P.
    """

    @classmethod
    def is_available(cls, device: torch.device) -> bool:
        return device.type != 'cuda' or has_cuda_op()

    def lay_out(self, feats: list[Tensor]) -> None:
        self.layout = lay_out_planes(self.level_sizes, feats[0].device)
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

        spatial = self.attend_frames(
            self.mean_table, a_query_each(locations), a_query_each(weights)
        )
        temporal = self.attend_frames(self.frame_table, locations, weights / points)
        return (
            spatial.squeeze(1).unflatten(1, (queries, points)).transpose(2, 3),
            temporal.permute(0, 2, 3, 1, 4),
        )

    def attend_frames(
        self, table: Tensor, locations: Tensor, weights: Tensor
    ) -> Tensor:
        """
        Args:
            table: (B, frames, cells of all levels, G, c).
            locations: [0, 1] of the levels' extents, (B, queries, G, L, points, 2).
            weights: (B, queries, G, L, points).

        Returns:
            (B, frames, queries, G, c)
        """
        batch, frames = table.shape[:2]
        values = attend(
            table.flatten(0, 1),
            self.layout,
            locations.repeat_interleave(frames, dim=0),
            weights.repeat_interleave(frames, dim=0),
        )
        return values.unflatten(0, (batch, frames)).unflatten(-1, (self.num_groups, -1))
