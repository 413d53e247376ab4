"""mmcv's multi-scale deformable attention, on any device.

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

from stmixer_mm.compat import stack_numbers

HAS_CUDA_OP = get_compiling_cuda_version() != 'not available'


class PlaneLayout(NamedTuple):
    """Where the cells of M planes are, which lie one after the other."""

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
    if not (values.is_cuda and HAS_CUDA_OP):
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
