"""Both means, and their gradients, as one Triton kernel each.

Imported where Triton is there only. Shapes: as in :mod:`.sampler`; S cells of all
levels. All frames of a cell lie together in the table, so that one visit to a cell
serves both means, and nothing of size P * T * C leaves the kernels. Numbers of points and
of cells in a frame fit into int32; places in tensors are int64.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _low_cell(xy, extent, size):
    """The cell whose centre is at or before a point along x or y.

    Returns:
        Its number and the point's distance from its centre, in cells.
    """
    # Rounded as grid_sample rounds, so that points on pixel centres fall on the same
    # side of the kink of bilinear interpolation.
    size = size.to(xy.dtype)
    normalised = xy / extent if xy.dtype == tl.float64 else tl.div_rn(xy, extent)
    cell = ((2 * normalised - 1) + 1) * (size * 0.5) - 0.5
    # Far-off points overflow integers: bring them to just outside the level first.
    cell = tl.minimum(tl.maximum(cell, -2.0), size + 1)
    low = tl.floor(cell)
    return low.to(tl.int32), cell - low


@triton.jit
def _place(levels, extents, level, x, y):
    """Points in a level: its size and first cell, the low cell and part of one."""
    width = tl.load(levels + 3 * level)
    height = tl.load(levels + 3 * level + 1)
    x_low, x_part = _low_cell(x, tl.load(extents + 2 * level), width)
    y_low, y_part = _low_cell(y, tl.load(extents + 2 * level + 1), height)
    first_cell = tl.load(levels + 3 * level + 2)
    return width, height, first_cell, x_low, x_part, y_low, y_part


@triton.jit
def _corner(
    width, height, first_cell, x_low, x_part, y_low, y_part, corner: tl.constexpr
):
    """One of the four cells around a point, see :func:`_place`.

    Returns:
        Its number, whether it is in the level, and its weights along x and y.
    """
    x = x_low + corner % 2
    y = y_low + corner // 2
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    weight_x = x_part if corner % 2 else 1 - x_part
    weight_y = y_part if corner // 2 else 1 - y_part
    cell = (first_cell + y * width + x).to(tl.int64)
    return cell, inside, weight_x, weight_y


@triton.jit
def _load_pair(pairs, mask):
    """Neighbouring values, such as x and y."""
    return tl.load(pairs, mask=mask, other=0), tl.load(pairs + 1, mask=mask, other=0)


@triton.jit
def _density(size, extent):
    """Cells per pixel along x or y."""
    extent = tl.load(extent)
    return size.to(extent.dtype) / extent


@triton.jit(do_not_specialize=['num_queries', 'num_cells'])
def _means_kernel(
    table,  # (B, G, S, T, c)
    levels,  # (L, 3): width, height, first cell
    extents,  # (L, 2)
    points_xy,  # (B, Q, G, P, 2)
    weights,  # (B, Q, G, P, L)
    spatial,  # (B, Q, G, P, c)
    temporal,  # (B, Q, G, T, c)
    num_queries,
    num_cells,
    G: tl.constexpr,
    T: tl.constexpr,
    C: tl.constexpr,
    P: tl.constexpr,
    L: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """A block of channels of one group of one query."""
    dtype: tl.constexpr = points_xy.dtype.element_ty
    channel_blocks: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    item = (tl.program_id(0) // channel_blocks).to(tl.int64)
    table_number = item // (num_queries * G) * G + item % G
    table += table_number * num_cells * (T * C)
    points_xy += item * (P * 2)
    weights += item * (P * L)
    spatial += item * (P * C)
    temporal += item * (T * C)

    first_channel = tl.program_id(0) % channel_blocks * BLOCK_C
    channel = first_channel + tl.arange(0, BLOCK_C)[None, None, :]
    frame = tl.arange(0, BLOCK_T)[:, None, None]
    in_row = (frame < T) & (channel < C)
    of_row = frame * C + channel
    sums = tl.full((BLOCK_T, BLOCK_P, BLOCK_C), 0, dtype)
    for first_point in range(0, P, BLOCK_P):
        point = first_point + tl.arange(0, BLOCK_P)[None, :, None]
        is_point = point < P
        x, y = _load_pair(points_xy + 2 * point, is_point)
        values = tl.full((BLOCK_T, BLOCK_P, BLOCK_C), 0, dtype)
        for level in range(L):
            width, height, first_cell, x_low, x_part, y_low, y_part = _place(
                levels, extents, level, x, y
            )
            weight = tl.load(weights + L * point + level, mask=is_point, other=0)
            for corner in tl.static_range(4):
                cell, inside, weight_x, weight_y = _corner(
                    width, height, first_cell, x_low, x_part, y_low, y_part, corner
                )
                mask = inside & is_point & in_row
                rows = tl.load(table + cell * (T * C) + of_row, mask=mask, other=0)
                values += (weight * weight_y * weight_x) * rows.to(dtype)
        tl.store(
            spatial + point * C + channel,
            tl.sum(values, axis=0, keep_dims=True) / T,
            mask=is_point & (channel < C),
        )
        sums += values
    tl.store(temporal + of_row, tl.sum(sums, axis=1, keep_dims=True) / P, mask=in_row)


@triton.jit(do_not_specialize=['num_queries', 'num_cells'])
def _gradients_kernel(
    table,  # (B, G, S, T, c)
    levels,  # (L, 3): width, height, first cell
    extents,  # (L, 2)
    points_xy,  # (B, Q, G, P, 2)
    weights,  # (B, Q, G, P, L)
    spatial_grad,  # (B, Q, G, P, c)
    temporal_grad,  # (B, Q, G, T, c)
    table_grad,  # (B, G, S, T, c), zeros
    xy_grad,  # (B, Q, G, P, 2)
    weights_grad,  # (B, Q, G, P, L)
    num_queries,
    num_cells,
    G: tl.constexpr,
    T: tl.constexpr,
    C: tl.constexpr,
    P: tl.constexpr,
    L: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    WITH_TABLE: tl.constexpr,
):
    """A block of points of one group of one query."""
    point_blocks: tl.constexpr = (P + BLOCK_P - 1) // BLOCK_P
    item = (tl.program_id(0) // point_blocks).to(tl.int64)
    table_number = item // (num_queries * G) * G + item % G
    first_point = tl.program_id(0) % point_blocks * BLOCK_P
    _gradients_of_points(
        table + table_number * num_cells * (T * C),
        levels,
        extents,
        points_xy + item * (P * 2),
        weights + item * (P * L),
        spatial_grad + item * (P * C),
        temporal_grad + item * (T * C),
        table_grad + table_number * num_cells * (T * C),
        xy_grad + item * (P * 2),
        weights_grad + item * (P * L),
        first_point + tl.arange(0, BLOCK_P)[None, :, None],
        tl.arange(0, BLOCK_T)[:, None, None],
        T,
        C,
        P,
        L,
        BLOCK_C,
        WITH_TABLE,
    )


@triton.jit
def _gradients_of_points(
    table,
    levels,
    extents,
    points_xy,
    weights,
    spatial_grad,
    temporal_grad,
    table_grad,
    xy_grad,
    weights_grad,
    point,
    frame,
    T: tl.constexpr,
    C: tl.constexpr,
    P: tl.constexpr,
    L: tl.constexpr,
    BLOCK_C: tl.constexpr,
    WITH_TABLE: tl.constexpr,
):
    """Gradients for some points, with pointers to the group of the query."""
    is_point = point < P
    x, y = _load_pair(points_xy + 2 * point, is_point)
    zero = tl.full(x.shape, 0, x.dtype)
    x_grad, y_grad = zero, zero
    for level in range(L):
        width, height, first_cell, x_low, x_part, y_low, y_part = _place(
            levels, extents, level, x, y
        )
        weight = tl.load(weights + L * point + level, mask=is_point, other=0)
        weight_grad, cell_x_grad, cell_y_grad = zero, zero, zero
        for first_channel in range(0, C, BLOCK_C):
            channel = first_channel + tl.arange(0, BLOCK_C)[None, None, :]
            in_row, of_row = (frame < T) & (channel < C), frame * C + channel
            of_frames = tl.load(temporal_grad + of_row, mask=in_row, other=0)
            in_point = is_point & (channel < C)
            of_points = tl.load(spatial_grad + point * C + channel, in_point, 0)
            value_grad = of_points / T + of_frames / P
            for corner in tl.static_range(4):
                cell, inside, weight_x, weight_y = _corner(
                    width, height, first_cell, x_low, x_part, y_low, y_part, corner
                )
                # Four channels a thread: wider vectors of a half table cost exchanges.
                places = tl.max_contiguous(cell * (T * C) + of_row, (1, 1, 4))
                mask = inside & is_point & in_row
                rows = tl.load(table + places, mask=mask, other=0)
                product = _sum(value_grad * rows.to(x.dtype))
                weight_grad += weight_y * weight_x * product
                cell_x_grad += weight_y * (product if corner % 2 else -product)
                cell_y_grad += weight_x * (product if corner // 2 else -product)
                if WITH_TABLE:
                    grads = (weight * weight_y * weight_x) * value_grad
                    tl.atomic_add(table_grad + places, grads, mask=mask, sem='relaxed')
        x_grad += weight * cell_x_grad * _density(width, extents + 2 * level)
        y_grad += weight * cell_y_grad * _density(height, extents + 2 * level + 1)
        tl.store(weights_grad + L * point + level, weight_grad, mask=is_point)
    tl.store(xy_grad + 2 * point, x_grad, mask=is_point)
    tl.store(xy_grad + 2 * point + 1, y_grad, mask=is_point)


@triton.jit
def _sum(values):
    """Over frames and channels, (BLOCK_T, BLOCK_P, BLOCK_C) to (1, BLOCK_P, 1)."""
    return tl.sum(tl.sum(values, axis=0, keep_dims=True), axis=2, keep_dims=True)


@torch.library.custom_op('stmixer_mm::fused_means', mutates_args=())
def fused_means(
    table: Tensor, levels: Tensor, extents: Tensor, points_xy: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Both means of the samples of a table.

    Args:
        table: float64 if all the others are, else float32 or half, (B, G, S, T, c).
        levels: Width, height and first cell, int32, (L, 3).
        extents: Pixels of the padded clip, x and y, (L, 2).
        points_xy: Pixels of the padded clip, (B, Q, G, P, 2).
        weights: Level weights, (B, Q, G, P, L).

    Returns:
        Mean over the frames (B, Q, G, P, c) and mean over the points (B, Q, G, T, c),
        of the type of the points.
    """
    spatial, temporal = _empty_means(table, levels, extents, points_xy, weights)
    if spatial.numel():
        _launch(
            _means_kernel,
            (table, levels, extents, points_xy, weights, spatial, temporal),
            split='C',
            num_warps=2,
        )
    return spatial, temporal


@fused_means.register_fake
def _empty_means(
    table: Tensor, levels: Tensor, extents: Tensor, points_xy: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    queries = points_xy.shape[:3]
    frames, channels = table.shape[3:]
    spatial = points_xy.new_empty(*queries, points_xy.size(3), channels)
    return spatial, points_xy.new_empty(*queries, frames, channels)


@torch.library.custom_op('stmixer_mm::fused_means_gradients', mutates_args=())
def fused_means_gradients(
    table: Tensor,
    levels: Tensor,
    extents: Tensor,
    points_xy: Tensor,
    weights: Tensor,
    spatial_grad: Tensor,
    temporal_grad: Tensor,
    with_table: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the table, of the points and of the level weights.

    The first is empty unless ``with_table``.
    """
    if with_table:
        table_grad = points_xy.new_zeros(table.shape)
    else:
        table_grad = points_xy.new_empty(0)
    xy_grad = torch.empty_like(points_xy, memory_format=torch.contiguous_format)
    weights_grad = torch.empty_like(weights, memory_format=torch.contiguous_format)
    if spatial_grad.numel():
        inputs = (table, levels, extents, points_xy, weights)
        _launch(
            _gradients_kernel,
            (*inputs, spatial_grad, temporal_grad, table_grad, xy_grad, weights_grad),
            split='P',
            num_warps=1,
            WITH_TABLE=with_table,
        )
    return table_grad.to(table.dtype), xy_grad, weights_grad


@fused_means_gradients.register_fake
def _empty_gradients(
    table, levels, extents, points_xy, weights, spatial_grad, temporal_grad, with_table
):
    return (
        table.new_empty(table.shape if with_table else 0),
        points_xy.new_empty(points_xy.shape),
        weights.new_empty(weights.shape),
    )


def _keep_inputs(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx, spatial_grad: Tensor, temporal_grad: Tensor):
    with_table = ctx.needs_input_grad[0]
    table_grad, xy_grad, weights_grad = fused_means_gradients(
        *ctx.saved_tensors, spatial_grad, temporal_grad, with_table
    )
    return table_grad if with_table else None, None, None, xy_grad, weights_grad


fused_means.register_autograd(_gradients, setup_context=_keep_inputs)


def _launch(
    kernel, tensors: Sequence[Tensor], *, split: str, num_warps: int, **flags: bool
) -> None:
    """Launch a kernel, with as many programs as there are blocks along one axis.

    Args:
        tensors: Those of the kernel, in its order.
        split: 'C' or 'P'.
    """
    tensors = [tensor.contiguous() for tensor in tensors]
    table, levels, _extents, points_xy = tensors[:4]
    sizes = tile_sizes(table, levels, points_xy, num_warps)
    blocks = triton.cdiv(sizes[split], sizes[f'BLOCK_{split}'])
    grid = (points_xy.shape[:3].numel() * blocks,)
    queries, cells = points_xy.size(1), table.size(2)
    with torch.cuda.device_of(table):
        # Fused or not, products are rounded differently; versions of Triton differ.
        options = dict(num_warps=num_warps, enable_fp_fusion=False)
        kernel[grid](*tensors, queries, cells, **sizes, **flags, **options)


def tile_sizes(
    table: Tensor, levels: Tensor, points_xy: Tensor, num_warps: int
) -> dict[str, int]:
    """The kernels' constants: sizes of the data, and of what a program holds of them.

    A thread holds one point and four channels, in eight frames or fewer, backward in
    four: float32 feats of 8 frames take 166 registers forward and 206 backward on
    sm_86. Twice as much spills backward, on sm_80 with 16 frames.
    """
    frames, channels = table.shape[3:]
    points = points_xy.size(3)
    block_t = triton.next_power_of_2(frames)
    block_c = min(triton.next_power_of_2(channels), 32, max(4, 1024 // block_t))
    block_p = min(4 * num_warps, max(1, 512 * num_warps**2 // (block_t * block_c)))
    return dict(
        G=table.size(1),
        T=frames,
        C=channels,
        P=points,
        L=levels.size(0),
        BLOCK_T=block_t,
        BLOCK_P=min(triton.next_power_of_2(points), block_p),
        BLOCK_C=block_c,
    )
