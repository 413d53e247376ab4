"""Both means as weighted sums of table rows: the fastest on a CPU.

Shapes: as in :mod:`.sampler`; S cells of all levels. A point is a bag of K = 4 * L
rows, a query's group one of P * K rows; N = B * Q * G of those.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from stmixer_mm.models.decoder.sampling.sampler import Sampler, join_cells


class EmbeddingBagSampler(Sampler):
    """One row of a table per cell, all frames in it: (B * G * S, T * c).

    The gradient of the levels is one for all stages, see :class:`BagGradient`.
    """

    reads_half = True

    def lay_out(self, feats: list[Tensor]) -> None:
        device = feats[0].device
        sizes = torch.tensor(self.level_sizes, dtype=torch.int32, device=device)
        areas = sizes.prod(dim=1)
        level_starts = areas.cumsum(0) - areas
        tables = torch.arange(feats[0].size(0) * self.num_groups, device=device)
        # As they meet (L, 2, B, Q, G, P) and, without the 2, the corners' rows.
        self.extent_xy = self.extents[..., None, None, None, None]
        self.size_xy = sizes.flip(1).to(self.extents)[..., None, None, None, None]
        per_level = (slice(None), *(None,) * 5)
        self.line_lengths = sizes[:, 1][per_level]
        table_starts = (tables * areas.sum()).view(-1, 1, self.num_groups, 1)
        self.row_starts = (level_starts[per_level] + table_starts).int()

        self.frame_table, self.mean_table, self.anchor = _Tables.apply(
            self.num_groups, self.dtype, *feats
        )

    def means(self, points_xy: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        queries, points = points_xy.shape[:3], points_xy.size(3)
        rows, weights = (
            values.flatten(0, 3).contiguous()
            for values in self.corner_rows(points_xy, weights)
        )
        weights = weights.to(self.frame_table.dtype)
        bag_size = points * rows.size(1)
        # Compiled, the bags leave no trace: autograd takes the tables as they are.
        is_eager = not torch.compiler.is_compiling()
        mean_table, frame_table = self.mean_table, self.frame_table
        if is_eager:
            mean_table, frame_table = mean_table.detach(), frame_table.detach()
        spatial = F.embedding_bag(
            rows, mean_table, per_sample_weights=weights, mode='sum'
        )
        temporal = F.embedding_bag(
            rows.view(-1, bag_size),
            frame_table,
            per_sample_weights=weights.view(-1, bag_size),
            mode='sum',
        )
        if is_eager:
            spatial, temporal = _HandBackBags.apply(
                spatial, temporal, self.anchor, rows, weights.detach()
            )
        channels = mean_table.size(1)
        return (
            spatial.view(*queries, points, channels),
            temporal.view(*queries, self.num_frames, channels) / points,
        )

    def corner_rows(self, points_xy: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The four cells around each point in each level, (B, Q, G, P, K).

        Their row numbers, and weights: level times bilinear, zero outside the level.
        """
        # Levels, axes and sides come first, so that the inner loops are long.
        points_xy = points_xy.movedim(-1, 0).contiguous()
        # Rounded as grid_sample rounds, so that points on pixel centres fall on the
        # same side of the kink of bilinear interpolation.
        grid = 2 * (points_xy / self.extent_xy) - 1  # (L, 2, B, Q, G, P)
        cell_xy = (grid + 1) * (self.size_xy / 2) - 0.5
        low = cell_xy.detach().floor()
        fraction = cell_xy - low
        # Far-off points overflow integers: bring them to just outside the level first.
        low = torch.minimum(low.clamp(min=-2), self.size_xy).int()
        side_xy = torch.stack((low, low + 1), dim=2)  # (L, 2, 2, B, Q, G, P)
        inside = (side_xy >= 0) & (side_xy < self.size_xy.unsqueeze(2))
        x, y = (side_xy * inside).unbind(1)
        side_weights = torch.stack((1 - fraction, fraction), dim=2) * inside
        weights_x, weights_y = side_weights.unbind(1)

        line_starts = self.row_starts + y * self.line_lengths
        rows = line_starts.unsqueeze(2) + x.unsqueeze(1)
        weights_y = weights_y * weights.movedim(-1, 0).unsqueeze(1)
        row_weights = weights_y.unsqueeze(2) * weights_x.unsqueeze(1)
        return tuple(
            values.flatten(0, 2).movedim(0, -1) for values in (rows, row_weights)
        )


class BagGradient(Tensor):
    """Adding two of these lists the bags of both.

    A table is used in every stage: as a tensor, its gradient would be written once for
    each of them, though few of its rows are in a stage's bags. So the stages hand back
    their bags (tuples of tensors), and :class:`_Tables` sums all of them at once.

    A scalar to autograd.
    """

    @staticmethod
    def __new__(cls, bags: list[tuple[Tensor, ...]], like: Tensor) -> 'BagGradient':
        gradient = Tensor._make_wrapper_subclass(
            cls, (), dtype=like.dtype, device=like.device
        )
        gradient.bags = bags
        return gradient

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.add.Tensor:
            first, second = args
            return cls(first.bags + second.bags, like=first)
        if func is torch.ops.aten.isnan.default:
            # Asked by autograd's anomaly mode, which sees what is in the bags, too.
            return torch.zeros((), dtype=torch.bool, device=args[0].device)
        raise NotImplementedError(f'{func} of a gradient that lists bags')

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self.bags)} bags)'


class _Tables(torch.autograd.Function):
    """Levels to tables: frames (B * G * S, T * c), their mean (B * G * S, c).

    The third output is the anchor, whose gradient is a :class:`BagGradient`.
    """

    @staticmethod
    def forward(ctx, num_groups: int, dtype, *feats: Tensor):
        ctx.set_materialize_grads(False)
        ctx.level_sizes = [feat.shape[-2:] for feat in feats]
        ctx.feats_dtype = feats[0].dtype
        frame_cells = join_cells(feats, num_groups, dtype)
        # Of feats in channels-last layout PyTorch takes three times as long.
        mean_cells = frame_cells.mean(dim=3, keepdim=True)
        ctx.cells_shape = frame_cells.shape
        return (
            frame_cells.flatten(3).flatten(0, 2),
            mean_cells.flatten(3).flatten(0, 2),
            frame_cells.new_empty(()),
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, frame_grad, mean_grad, anchor_grad):
        if anchor_grad is not None:
            frame_grad, mean_grad = _table_grads(
                *map(torch.cat, zip(*anchor_grad.bags, strict=True)),
                num_rows=ctx.cells_shape[:3].numel(),
            )
        frames = ctx.cells_shape[3]
        cells_grad = frame_grad.reshape(ctx.cells_shape)
        cells_grad.add_(mean_grad.view(*ctx.cells_shape[:3], 1, -1), alpha=1 / frames)
        cells_grad = cells_grad.to(ctx.feats_dtype)
        areas = [size.numel() for size in ctx.level_sizes]
        levels = cells_grad.split(areas, dim=2)
        feat_grads = (
            level.permute(0, 1, 4, 3, 2).flatten(1, 2).unflatten(-1, size)
            for level, size in zip(levels, ctx.level_sizes, strict=True)
        )
        return None, None, *feat_grads


def _table_grads(
    rows: Tensor,
    weights: Tensor,
    spatial_grad: Tensor,
    temporal_grad: Tensor,
    *,
    num_rows: int,
) -> tuple[Tensor, Tensor]:
    """Gradients of both tables: seen from a row, they are sums over bags.

    Args:
        rows, weights: (N * P, K)
        spatial_grad: (N * P, c)
        temporal_grad: (N, T * c)
        num_rows: Rows of a table.

    Returns:
        Of the frames (num_rows, T * c) and of the means (num_rows, c).
    """
    corners = rows.size(1)
    points = len(rows) // max(1, len(temporal_grad))
    sorted_rows, order = rows.flatten().sort()
    numbers = torch.arange(num_rows, device=rows.device, dtype=rows.dtype)
    starts = torch.searchsorted(sorted_rows, numbers)
    weights = weights.flatten()[order]
    return tuple(
        F.embedding_bag(
            order // bag_size, grads, starts, per_sample_weights=weights, mode='sum'
        )
        for bag_size, grads in (
            (points * corners, temporal_grad),
            (corners, spatial_grad),
        )
    )


class _HandBackBags(torch.autograd.Function):
    """Passes both sums on; the gradient of the anchor is all that made them."""

    @staticmethod
    def forward(ctx, spatial, temporal, anchor, rows, weights):
        ctx.save_for_backward(rows, weights)
        ctx.mark_dirty(spatial, temporal)
        return spatial, temporal

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, spatial_grad: Tensor, temporal_grad: Tensor):
        anchor_grad = None
        if ctx.needs_input_grad[2]:
            grads = spatial_grad.contiguous(), temporal_grad.contiguous()
            anchor_grad = BagGradient([(*ctx.saved_tensors, *grads)], like=spatial_grad)
        return spatial_grad, temporal_grad, anchor_grad, None, None
