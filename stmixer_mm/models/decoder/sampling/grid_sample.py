"""The literal formulation on ``grid_sample``: portable, and the others' oracle.

Shapes: as in :mod:`.sampler`.
"""

import torch.nn.functional as F
from torch import Tensor

from stmixer_mm.models.decoder.sampling.sampler import Sampler


class GridSampler(Sampler):
    """Every point in every frame and level, then the means."""

    def lay_out(self, feats: list[Tensor]) -> None:
        self.feats = [feat.to(self.dtype) for feat in feats]

    def means(self, points_xy: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        sampled = self.sample_all_frames(points_xy, weights)
        return sampled.mean(dim=3), sampled.mean(dim=4)

    def sample_all_frames(self, points_xy: Tensor, weights: Tensor) -> Tensor:
        """One ``grid_sample`` per level, repeated over time: (B, Q, G, T, P, c)."""
        batch, _queries, groups, _points, _ = points_xy.shape
        grids = (2 * self.normalise(points_xy) - 1).permute(4, 0, 2, 1, 3, 5)
        sampled = 0
        for level, grid, weight in zip(
            self.feats, grids, weights.unbind(-1), strict=True
        ):
            value = level.unflatten(1, (groups, -1)).transpose(2, 3).flatten(0, 2)
            grid = grid.flatten(0, 1).repeat_interleave(self.num_frames, dim=0)
            values = F.grid_sample(
                value, grid, mode='bilinear', padding_mode='zeros', align_corners=False
            )  # (B * G * T, c, Q, P)
            values = values.unflatten(0, (batch, groups, self.num_frames))
            values = values.permute(0, 4, 1, 2, 5, 3)
            sampled = sampled + values * weight[:, :, :, None, :, None]
        return sampled
