"""Feature maps as parts of several projects read them.

Shapes: B clips, C channels, T frames, L levels.
"""

from collections.abc import Sequence

from torch import Tensor


def keyframes(feats: Sequence[Tensor]) -> list[Tensor]:
    """Frames T // 2 of feats (B, C, T, H_l, W_l): (B, C, H_l, W_l), the keyframe's."""
    return [feat[:, :, feat.size(2) // 2] for feat in feats]


def fits_stride(size: Sequence[int], pad_shape: tuple[int, int], stride: float) -> bool:
    """True if a level of (h, w) cells may have this stride, up to a cell."""
    sides = zip(pad_shape, size, strict=True)
    return all(abs(cells - pixels / stride) <= 1 for pixels, cells in sides)
