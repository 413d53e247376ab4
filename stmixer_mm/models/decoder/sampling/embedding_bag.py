"""Both means as weighted sums of table rows: the fastest on a CPU.

Shapes: as in :mod:`.sampler`; S cells of all levels. A point is a bag of 4 * L rows,
a query's group a bag of P * 4 * L rows.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .sampler import Sampler


class EmbeddingBagSampler(Sampler):
    """One row of a table per cell, all frames in it: (B * G * S, T * c).

    The gradient of the maps is not computed stage by stage, which would write a table
    for each: the stages leave their bags, and the tables' own backward sums all of
    them at once.
    """

    def lay_out(self, feats: list[Tensor]) -> None:
        sizes = torch.tensor(self.map_sizes, device=feats[0].device)
        areas = sizes.prod(dim=1)
        self.size_xy = sizes.flip(1)
        self.level_starts = areas.cumsum(0) - areas
        self.num_cells = int(areas.sum())
        self.left_bags = _LeftBags()
        self.frame_table, self.mean_table, self.anchor = _Tables.apply(
            self.left_bags, self.num_groups, *feats
        )

    def means(self, points_xy: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        batch, queries, groups, points, _ = points_xy.shape
        rows, row_weights = self.corner_rows(points_xy, weights)
        rows, row_weights = rows.flatten(0, 2), row_weights.flatten(0, 2)
        spatial = F.embedding_bag(
            rows.flatten(0, 1),
            self.mean_table,
            per_sample_weights=row_weights.flatten(0, 1),
            mode='sum',
        )
        temporal = F.embedding_bag(
            rows.flatten(1),
            self.frame_table,
            per_sample_weights=row_weights.flatten(1),
            mode='sum',
        )
        spatial, temporal = _LeaveBags.apply(
            spatial, temporal, self.anchor, self.left_bags, rows, row_weights.detach()
        )
        channels = self.mean_table.size(1)
        return (
            spatial.view(batch, queries, groups, points, channels),
            temporal.view(batch, queries, groups, self.num_frames, channels) / points,
        )

    def corner_rows(self, points_xy: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The four cells around each point in each level.

        Returns:
            Row numbers and weights (level times bilinear, zero outside the map), both
            (B, Q, G, P, 4 * L).
        """
        batch, _queries, groups = points_xy.shape[:3]
        device = points_xy.device
        # Rounded as grid_sample rounds, so that points on pixel centres fall on the
        # same side of the kink of bilinear interpolation.
        grid = 2 * self.normalise(points_xy) - 1
        cell_xy = (grid + 1) * (self.size_xy / 2) - 0.5  # (B, Q, G, P, L, 2)
        low = cell_xy.detach().floor()
        fraction = cell_xy - low
        # Far-off points overflow integers: bring them to just outside the map first.
        low = torch.minimum(low.clamp(min=-2), self.size_xy.to(low)).int()
        side_xy = torch.stack((low, low + 1), dim=-1)
        inside = (side_xy >= 0) & (side_xy < self.size_xy.unsqueeze(-1))
        side_weights = torch.stack((1 - fraction, fraction), dim=-1) * inside
        x, y = (side_xy * inside).unbind(-2)  # (B, Q, G, P, L, 2)
        weights_x, weights_y = side_weights.unbind(-2)

        clip = torch.arange(batch, device=device).view(-1, 1, 1, 1, 1)
        group = torch.arange(groups, device=device).view(-1, 1, 1)
        level_starts = (clip * groups + group) * self.num_cells + self.level_starts
        line_starts = level_starts.int().unsqueeze(-1) + y * self.size_xy[:, :1].int()
        weights_y = weights_y * weights.unsqueeze(-1)
        rows = line_starts.unsqueeze(-1) + x.unsqueeze(-2)
        row_weights = weights_y.unsqueeze(-1) * weights_x.unsqueeze(-2)
        return rows.flatten(4), row_weights.flatten(4)


class _LeftBags:
    """What the stages leave for the backward of the tables.

    Kept by backward pass, so that one that never reaches the maps cannot add to the
    next.
    """

    def __init__(self) -> None:
        self.of_pass: tuple[int, list] = (-1, [])

    def leave(self, *bags: Tensor) -> None:
        current = torch._C._current_graph_task_id()
        if self.of_pass[0] != current:
            self.of_pass = (current, [])
        self.of_pass[1].append(bags)

    def collect(self) -> Sequence[Tensor]:
        """Rows (N, P, K), weights (N, P, K), gradients (N * P, c) and (N, T * c)."""
        of_pass, bags = self.of_pass
        self.of_pass = (-1, [])
        assert of_pass == torch._C._current_graph_task_id()
        return [torch.cat(each) for each in zip(*bags, strict=True)]


class _Tables(torch.autograd.Function):
    """Maps to tables: frames (B * G * S, T * c), their mean (B * G * S, c).

    The third output is empty: the graph hangs on it.
    """

    @staticmethod
    def forward(ctx, left_bags: _LeftBags, num_groups: int, *feats: Tensor):
        cells = torch.cat(
            [
                feat.flatten(3).unflatten(1, (num_groups, -1)).permute(0, 1, 4, 3, 2)
                for feat in feats
            ],
            dim=2,
        )  # (B, G, S, T, c)
        ctx.left_bags = left_bags
        ctx.cells_shape = cells.shape
        ctx.map_sizes = [feat.shape[-2:] for feat in feats]
        tables = cells.flatten(3).flatten(0, 2), cells.mean(dim=3).flatten(0, 2)
        ctx.mark_non_differentiable(*tables)
        return *tables, cells.new_empty(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *_):
        rows, weights, spatial_grad, temporal_grad = ctx.left_bags.collect()
        batch, groups, num_cells, frames, channels = ctx.cells_shape
        num_rows = batch * groups * num_cells
        sorted_rows, order = rows.flatten().sort()
        weights = weights.flatten()[order]
        numbers = torch.arange(num_rows, device=rows.device, dtype=rows.dtype)
        starts = torch.searchsorted(sorted_rows, numbers)

        def row_grads(bag_grads: Tensor, bag_size: int) -> Tensor:
            # Seen from the table, its gradient is a sum over bags.
            return F.embedding_bag(
                order // bag_size,
                bag_grads,
                starts,
                per_sample_weights=weights,
                mode='sum',
            )

        _bags, points, corners = rows.shape
        cells_grad = row_grads(temporal_grad, points * corners).view(ctx.cells_shape)
        mean_grad = row_grads(spatial_grad, corners).view(
            batch, groups, num_cells, 1, channels
        )
        cells_grad.add_(mean_grad, alpha=1 / frames)
        areas = [height * width for height, width in ctx.map_sizes]
        feat_grads = [
            level.permute(0, 1, 4, 3, 2).flatten(1, 2).unflatten(-1, size)
            for level, size in zip(
                cells_grad.split(areas, dim=2), ctx.map_sizes, strict=True
            )
        ]
        return None, None, *feat_grads


class _LeaveBags(torch.autograd.Function):
    """Passes both sums on; its backward leaves their gradients with their bags."""

    @staticmethod
    def forward(ctx, spatial, temporal, anchor, left_bags, rows, weights):
        ctx.save_for_backward(rows, weights)
        ctx.left_bags = left_bags
        ctx.mark_dirty(spatial, temporal)
        return spatial, temporal

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, spatial_grad: Tensor, temporal_grad: Tensor):
        rows, weights = ctx.saved_tensors
        if ctx.needs_input_grad[2]:
            ctx.left_bags.leave(
                rows, weights, spatial_grad.contiguous(), temporal_grad.contiguous()
            )
        anchor_grad = spatial_grad.new_empty(0)
        return spatial_grad, temporal_grad, anchor_grad, None, None, None
