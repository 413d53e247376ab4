"""Sampling on ``grid_sample``, which all devices and runtimes have.

Shapes: as in :mod:`.sampler`.
"""

from functools import reduce
from operator import add

import torch.nn.functional as F
from torch import Tensor

from stmixer_mm.models.decoder.sampling.sampler import Sampler


class GridSampler(Sampler):
    """The literal formulation, the others' oracle.

    Every point in every frame and level, then the means.
    """

    def lay_out(self, feats: list[Tensor]) -> None:
        self.feats = [feat.to(self.dtype) for feat in feats]

    def means(self, points_xy: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        sampled = self.sample_all_frames(points_xy, weights)
        return sampled.mean(dim=3), sampled.mean(dim=4)

    def sample_all_frames(self, points_xy: Tensor, weights: Tensor) -> Tensor:
        """One ``grid_sample`` per level, repeated over time: (B, Q, G, T, P, c)."""
        batch, queries, groups, points, _ = points_xy.shape
        frames, channels = self.num_frames, self.feats[0].size(1) // groups
        grids = (2 * self.normalise(points_xy) - 1).permute(4, 0, 2, 1, 3, 5)
        weights = weights.permute(4, 0, 2, 1, 3)
        sampled = self.feats[0].new_zeros(
            batch, channels, groups, frames, points, queries
        )
        for level, grid, weight in zip(self.feats, grids, weights, strict=True):
            value = level.unflatten(1, (groups, -1)).permute(3, 0, 1, 2, 4, 5)
            values = F.grid_sample(
                value.flatten(0, 2),
                grid.flatten(0, 1).repeat(frames, 1, 1, 1),
                mode='bilinear',
                padding_mode='zeros',
                align_corners=False,
            )  # (T * B * G, c, Q, P)
            values *= weight.flatten(0, 1).unsqueeze(1).repeat(frames, 1, 1, 1)
            values = values.view(frames, batch, groups, channels, queries, points)
            sampled += values.permute(1, 3, 2, 0, 5, 4)
        return sampled.permute(0, 5, 2, 3, 4, 1)


class GridMeansSampler(Sampler):
    """The literal one with fewer copies, which other runtimes do not leave out.

    The levels are put in order once for all stages, and only the means are transposed.
    With clips instead of frames first, OpenVINO 2026.4 is wrong for some backbones.
    """

    def lay_out(self, feats: list[Tensor]) -> None:
        self.levels = [
            feat.to(self.dtype)
            .unflatten(1, (self.num_groups, -1))
            .permute(3, 0, 1, 2, 4, 5)
            .flatten(0, 2)
            for feat in feats
        ]  # (T * B * G, c, H_l, W_l)
        self.half_extents = self.extents / 2

    def means(self, points_xy: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        batch, _, groups, *_ = points_xy.shape
        frames = self.num_frames
        grids = points_xy.unsqueeze(-2) / self.half_extents - 1
        grids = grids.permute(4, 0, 2, 1, 3, 5).flatten(1, 2)
        grids = grids.repeat(1, frames, 1, 1, 1)
        weights = weights.permute(4, 0, 2, 1, 3).unsqueeze(3)
        weighted = (
            weight
            * F.grid_sample(
                level, grid, mode='bilinear', padding_mode='zeros', align_corners=False
            ).unflatten(0, (frames, batch, groups))
            for level, grid, weight in zip(self.levels, grids, weights, strict=True)
        )
        sampled = reduce(add, weighted)  # (T, B, G, c, Q, P); sum would add a 0
        return (
            sampled.mean(dim=0).permute(0, 3, 1, 4, 2),
            sampled.mean(dim=5).permute(1, 4, 2, 0, 3),
        )
