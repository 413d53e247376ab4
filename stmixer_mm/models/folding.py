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


def place_keyframe(keyframe: int | None, num_frames: int) -> int:
    """Index of the keyframe among the T frames of a feature map, from 0.

    By default T // 2, as in clips; where clips end before the keyframe, -1 is nearest.
    """
    return range(num_frames)[num_frames // 2 if keyframe is None else keyframe]


def keyframes(feats: Sequence[Tensor], keyframe: int | None) -> list[Tensor]:
    """Slices (B, C, H_l, W_l) of feats (B, C, T, H_l, W_l)."""
    return [feat[:, :, place_keyframe(keyframe, feat.size(2))] for feat in feats]
