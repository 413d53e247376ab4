"""Learned positions of patches, for frames of any size."""

import torch.nn.functional as F
from torch import Tensor


def resize_positions(
    positions: Tensor, table_grid: tuple[int, int], grid: tuple[int, int]
) -> Tensor:
    """Interpolate positions for another number of patches, as ViTs do.

    Args:
        positions: (1, h * w, C), row by row.
        table_grid: Their (h, w).
        grid: (h, w) to bring them to.

    Returns:
        (1, h * w, C) for ``grid``; the same tensor where the sizes agree.
    """
    if table_grid == grid:
        return positions
    as_map = positions.transpose(1, 2).unflatten(2, table_grid)
    resized = F.interpolate(as_map, size=grid, mode='bicubic', align_corners=False)
    return resized.flatten(2).transpose(1, 2)
