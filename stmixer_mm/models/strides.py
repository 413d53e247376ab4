"""Strides of the levels of a feature pyramid, in pixels of the padded clip per cell."""

from collections.abc import Sequence
from math import ceil, floor, log2

from torch import Tensor

from stmixer_mm.errors import UserError


def derive_strides(
    feats: Sequence[Tensor], pad_shape: tuple[int, int]
) -> tuple[float, ...]:
    """Strides of levels (B, C, T, H_l, W_l), from their sizes and that of the clip."""
    return tuple(_derive_stride(feat.shape[-2:], pad_shape) for feat in feats)


def _derive_stride(size: Sequence[int], pad_shape: tuple[int, int]) -> float:
    """Pixels per cell if both sides agree on it; else a stride that fits both.

    Where a side is not a multiple of the stride, a level may have a cell more or less:
    of the strides that fit then, a power of two, or the one in the middle.
    """
    # In integers: sizes may be symbols (torch.export), of which none is ruled out.
    stride = pad_shape[0] // size[0]
    if pad_shape == (stride * size[0], stride * size[1]):
        return float(stride)
    sides = list(zip(pad_shape, size, strict=True))
    in_height, in_width = (pixels / cells for pixels, cells in sides)
    if in_height == in_width:
        return in_height
    low = max(pixels / (cells + 1) for pixels, cells in sides)
    high = min(pixels / max(cells - 1, 0.5) for pixels, cells in sides)
    if low >= high:
        raise UserError(
            f'A level has {in_height:g} pixels a cell in height but {in_width:g} in '
            'width; use a neck whose levels have one stride each.'
        )
    middle = (low * high) ** 0.5
    powers = [2.0**power for power in range(floor(log2(low)), ceil(log2(high)) + 1)]
    fitting = [power for power in powers if low <= power < high]
    return min(fitting, key=lambda power: abs(log2(power / middle)), default=middle)


def level_sides(
    sizes: Sequence[tuple[int, int]], strides: Sequence[float]
) -> list[float]:
    """w, h in pixels of each of L levels of (h, w) cells, 2 L in all."""
    return [
        cells * stride
        for size, stride in zip(sizes, strides, strict=True)
        for cells in reversed(size)
    ]
