"""Time folded into the batch, for parts made for images.

Shapes: B clips, C channels, T frames.
"""

from torch import Tensor


def fold_time(feat: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B * T, C, H, W)"""
    return feat.transpose(1, 2).flatten(0, 1)


def unfold_time(feat: Tensor, batch_size: int) -> Tensor:
    """(B * T, C, H, W) -> (B, C, T, H, W)"""
    return feat.unflatten(0, (batch_size, -1)).transpose(1, 2)
