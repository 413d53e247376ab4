"""Time folded into the batch, for parts made for images, and the keyframe alone.

Shapes: B clips, C channels, T frames.
"""

from collections.abc import Sequence

from torch import Tensor


def fold_time(feat: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B * T, C, H, W)"""
    return feat.transpose(1, 2).flatten(0, 1)


def unfold_time(feat: Tensor, batch_size: int) -> Tensor:
    """(B * T, C, H, W) -> (B, C, T, H, W)"""
    return feat.unflatten(0, (batch_size, -1)).transpose(1, 2)


def keyframes(feats: Sequence[Tensor]) -> list[Tensor]:
    """Frames T // 2 of feats (B, C, T, H_l, W_l): (B, C, H_l, W_l), the keyframe's."""
    return [feat[:, :, feat.size(2) // 2] for feat in feats]
