"""4D sampling: where the queries look, and what they see there.

Shapes: B clips, Q queries, G groups, P points of a group, L levels, T frames,
c channels of a group (C = G * c). The back ends compute the same two means of the
sampled features and differ in speed only.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from math import gcd, log2

import torch
import torch.nn.functional as F
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from torch import Tensor

from ..boxes import box_size, full_precision


def make_sample_points(offsets: Tensor, boxes_xyzr: Tensor) -> Tensor:
    """Place points relative to their boxes (paper, section 3.2).

    Args:
        offsets: (dx, dy, dz) in box widths, box heights and octaves of scale,
            (B, Q, G, P, 3).
        boxes_xyzr: (B, Q, 4).

    Returns:
        (x, y, z), pixels of the padded clip and log2 of a scale in pixels,
        (B, Q, G, P, 3).
    """
    boxes_xyzr = full_precision(boxes_xyzr)[:, :, None, None]
    scale = torch.cat(
        (box_size(boxes_xyzr), torch.ones_like(boxes_xyzr[..., :1])), dim=-1
    )
    return boxes_xyzr[..., :3] + full_precision(offsets) * scale


def level_weights(z: Tensor, strides: Sequence[int]) -> Tensor:
    """Soft assignment of a scale to the levels of a pyramid.

    Args:
        z: log2 of a scale in pixels, (...). Twice the finest stride is level 0.
        strides: Strides of the levels, finest first.

    Returns:
        (..., L), positive, summing to 1 over the levels.
    """
    level = full_precision(z).unsqueeze(-1) - log2(2 * strides[0])
    distance = level - torch.arange(len(strides), device=z.device)
    return (-(distance**2) / 2).softmax(dim=-1)


class FeaturePyramid:
    """Feature maps with what depends on them alone, made once for all stages.

    Args:
        feats: L maps (B, C, T, H_l, W_l), finest first.
        strides: Pixels of the padded clip per cell, one per level.
        num_groups: G; C is a multiple of it.
    """

    def __init__(
        self, feats: Sequence[Tensor], *, strides: Sequence[int], num_groups: int
    ) -> None:
        self.maps = [full_precision(feat) for feat in feats]
        self.strides = tuple(strides)
        self.num_groups = num_groups

    @property
    def num_frames(self) -> int:
        return self.maps[0].size(2)

    @cached_property
    def map_sizes(self) -> list[tuple[int, int]]:
        """(H_l, W_l) of each level."""
        return [tuple(level.shape[-2:]) for level in self.maps]

    @cached_property
    def level_starts(self) -> Tensor:
        """Number of the first cell of each level, (L,), when all are in one row."""
        areas = torch.tensor([height * width for height, width in self.map_sizes])
        return (areas.cumsum(0) - areas).to(self.maps[0].device)

    def all_cells(self) -> Tensor:
        """Cells of all levels in one row: (B, C, T, S)."""
        return torch.cat([level.flatten(3) for level in self.maps], dim=-1)

    @cached_property
    def time_mean(self) -> 'FeaturePyramid':
        """The pyramid of the maps' means over time (T = 1)."""
        means = [level.mean(dim=2, keepdim=True) for level in self.maps]
        return FeaturePyramid(means, strides=self.strides, num_groups=self.num_groups)

    @cached_property
    def frame_table(self) -> Tensor:
        """Cells of all levels, frame by frame, channels last: (B * T, S, G, c)."""
        cells = self.all_cells()
        return (
            cells.permute(0, 2, 3, 1)
            .reshape(
                -1, cells.size(3), self.num_groups, cells.size(1) // self.num_groups
            )
            .contiguous()
        )

    @cached_property
    def cell_table(self) -> Tensor:
        """One row per clip, cell and group, all frames in it: (B * S * G, T * c)."""
        _batch, channels, frames = self.maps[0].shape[:3]
        cells = self.all_cells()
        cells = cells.unflatten(1, (self.num_groups, channels // self.num_groups))
        return cells.permute(0, 4, 1, 3, 2).reshape(
            -1, frames * channels // self.num_groups
        )

    def normalise(self, points_xy: Tensor) -> Tensor:
        """Pixels to [0, 1] of each level's extent: (..., 2) -> (..., L, 2)."""
        extents = [
            (width * stride, height * stride)
            for (height, width), stride in zip(
                self.map_sizes, self.strides, strict=True
            )
        ]
        return points_xy.unsqueeze(-2) / points_xy.new_tensor(extents)


def sample_means(
    pyramid: FeaturePyramid, points: Tensor, *, backend: str = 'auto'
) -> tuple[Tensor, Tensor]:
    """Sample the maps at the points and average over time, and over points.

    Zeros outside a map, pixel centres at half integers. The same points serve every
    frame; group g samples its own channels.

    Args:
        pyramid: Maps of T frames.
        points: (x, y, z) as of :func:`make_sample_points`, (B, Q, G, P, 3).
        backend: A key of :data:`SAMPLING_BACKENDS`, or 'auto': the fastest one for
            the device.

    Returns:
        Mean over the frames (B, Q, G, P, c) and mean over the points (B, Q, G, T, c),
        both float32.

    Raises:
        ValueError: The back end is unknown.
    """
    if backend == 'auto':
        backend = 'mmcv' if points.is_cuda else 'embedding_bag'
    if backend not in SAMPLING_BACKENDS:
        raise ValueError(
            f"sampling back end '{backend}' is unknown; use 'auto' or one of "
            f'{sorted(SAMPLING_BACKENDS)}.'
        )
    with torch.autocast(points.device.type, enabled=False):
        weights = level_weights(points[..., 2], pyramid.strides)
        return SAMPLING_BACKENDS[backend](pyramid, points[..., :2], weights)


def sample_all_frames(
    pyramid: FeaturePyramid, points_xy: Tensor, weights: Tensor
) -> Tensor:
    """The literal formulation: one ``grid_sample`` per level, repeated over time.

    Args:
        points_xy: Pixels, (B, Q, G, P, 2).
        weights: Level weights, (B, Q, G, P, L).

    Returns:
        (B, Q, G, T, P, c)
    """
    batch, _queries, groups, _points, _ = points_xy.shape
    frames = pyramid.num_frames
    grids = (2 * pyramid.normalise(points_xy) - 1).permute(4, 0, 2, 1, 3, 5)
    sampled = 0
    for level, grid, weight in zip(
        pyramid.maps, grids, weights.unbind(-1), strict=True
    ):
        value = level.unflatten(1, (groups, -1)).transpose(2, 3).flatten(0, 2)
        grid = grid.flatten(0, 1).repeat_interleave(frames, dim=0)
        values = F.grid_sample(
            value, grid, mode='bilinear', padding_mode='zeros', align_corners=False
        )  # (B * G * T, c, Q, P)
        values = values.unflatten(0, (batch, groups, frames)).permute(0, 4, 1, 2, 5, 3)
        sampled = sampled + values * weight[:, :, :, None, :, None]
    return sampled


def _grid_sample_means(
    pyramid: FeaturePyramid, points_xy: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    sampled = sample_all_frames(pyramid, points_xy, weights)
    return sampled.mean(dim=3), sampled.mean(dim=4)


def _deformable_attention(
    pyramid: FeaturePyramid, locations: Tensor, weights: Tensor
) -> Tensor:
    """mmcv's multi-scale deformable attention on each frame of a pyramid.

    Args:
        locations: [0, 1] of the levels' extents, (B, Q, G, L, P, 2).
        weights: (B, Q, G, L, P).

    Returns:
        (B, T, Q, G, c)
    """
    value, frames = pyramid.frame_table, pyramid.num_frames
    sizes = torch.tensor(pyramid.map_sizes, device=value.device)
    locations = locations.repeat_interleave(frames, dim=0).contiguous()
    weights = weights.repeat_interleave(frames, dim=0).contiguous()
    if value.is_cuda:
        # The op wants a step that divides its batch.
        step = gcd(value.size(0), 64)
        out = MultiScaleDeformableAttnFunction.apply(
            value, sizes, pyramid.level_starts, locations, weights, step
        )
    else:
        out = multi_scale_deformable_attn_pytorch(value, sizes, locations, weights)
    return out.unflatten(0, (-1, frames)).unflatten(-1, (pyramid.num_groups, -1))


def _mmcv_means(
    pyramid: FeaturePyramid, points_xy: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Both means as deformable attention: sampling and averaging are linear.

    The mean over frames is one sample of the time-mean of the maps, each point a
    query of its own; the mean over points is an attention with weights / P.
    """
    _batch, queries, _groups, points, _ = points_xy.shape
    locations = pyramid.normalise(points_xy).transpose(3, 4)
    weights = weights.transpose(3, 4)

    def a_query_each(per_point: Tensor) -> Tensor:
        """(B, Q, G, L, P, ...) -> (B, Q * P, G, L, 1, ...)"""
        return per_point.movedim(4, 2).flatten(1, 2).unsqueeze(4)

    spatial = _deformable_attention(
        pyramid.time_mean, a_query_each(locations), a_query_each(weights)
    )
    temporal = _deformable_attention(pyramid, locations, weights / points)
    return (
        spatial.squeeze(1).unflatten(1, (queries, points)).transpose(2, 3),
        temporal.permute(0, 2, 3, 1, 4),
    )


def _corner_rows(
    pyramid: FeaturePyramid, points_xy: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """The four cells around each point in each level: rows of ``cell_table``.

    Returns:
        Row numbers and weights (level times bilinear, zero outside the map), both
        (B, Q, G, P, 4 * L).
    """
    batch, _, groups = points_xy.shape[:3]
    device = points_xy.device
    sizes = torch.tensor(pyramid.map_sizes, device=device)
    size_xy = sizes.flip(1)

    corner = torch.tensor([(0, 0), (1, 0), (0, 1), (1, 1)], device=device)
    # Rounded as grid_sample rounds, so that points on pixel centres fall on the same
    # side of the kink of bilinear interpolation.
    grid = 2 * pyramid.normalise(points_xy) - 1
    cell_xy = (grid + 1) * (size_xy / 2) - 0.5  # (B, Q, G, P, L, 2)
    low = cell_xy.detach().floor()
    fraction = (cell_xy - low).unsqueeze(-2)
    corner_weights = torch.where(corner.bool(), fraction, 1 - fraction).prod(dim=-1)

    # Far-off points overflow integers: bring them to just outside the map first.
    low = torch.minimum(low.clamp(min=-2), size_xy + 1.0).long()
    corner_xy = low.unsqueeze(-2) + corner
    limit_xy = size_xy[:, None] - 1
    inside = ((corner_xy >= 0) & (corner_xy <= limit_xy)).all(dim=-1)
    x, y = torch.minimum(corner_xy.clamp(min=0), limit_xy).unbind(-1)
    cell = pyramid.level_starts[:, None] + y * size_xy[:, :1] + x  # (B, Q, G, P, L, 4)

    clip = torch.arange(batch, device=device).view(-1, 1, 1, 1, 1, 1)
    group = torch.arange(groups, device=device).view(-1, 1, 1, 1)
    rows = (clip * sizes.prod(dim=1).sum() + cell) * groups + group
    corner_weights = corner_weights * inside * weights.unsqueeze(-1)
    return rows.flatten(-2), corner_weights.flatten(-2)


def _embedding_bag_means(
    pyramid: FeaturePyramid, points_xy: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Both means as weighted sums of table rows; all frames of a cell are one row."""
    batch, queries, groups, points, _ = points_xy.shape
    rows, row_weights = _corner_rows(pyramid, points_xy, weights)

    def weighted_rows(table: Tensor, rows: Tensor, row_weights: Tensor) -> Tensor:
        return F.embedding_bag(rows, table, per_sample_weights=row_weights, mode='sum')

    spatial = weighted_rows(
        pyramid.time_mean.cell_table, rows.flatten(0, 3), row_weights.flatten(0, 3)
    )
    temporal = weighted_rows(
        pyramid.cell_table,
        rows.flatten(3).flatten(0, 2),
        row_weights.flatten(3).flatten(0, 2) / points,
    )
    shape = (batch, queries, groups)
    return (
        spatial.view(*shape, points, spatial.size(1)),
        temporal.view(*shape, pyramid.num_frames, spatial.size(1)),
    )


SamplingBackend = Callable[[FeaturePyramid, Tensor, Tensor], tuple[Tensor, Tensor]]

SAMPLING_BACKENDS: dict[str, SamplingBackend] = {
    'grid_sample': _grid_sample_means,
    'mmcv': _mmcv_means,
    'embedding_bag': _embedding_bag_means,
}
