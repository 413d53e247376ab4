"""Levels of a feature pyramid as necks take them.

Shapes: B clips, C channels, T frames, L levels; levels are finest first.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from stmixer_mm.errors import UserError


def as_levels(feats: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """One feature map, or several, as a list."""
    return [feats] if isinstance(feats, Tensor) else list(feats)


def check_channels(levels: Sequence[Tensor], neck: nn.Module) -> None:
    """Check levels (B, C_l, T, H_l, W_l) against the ``in_channels`` of a neck."""
    channels, expected = [level.size(1) for level in levels], list(neck.in_channels)
    if channels != expected:
        raise UserError(
            f'{type(neck).__name__} has in_channels={expected} but is given levels of '
            f'{channels} channels; set the one to the other.'
        )


def resize(feat: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, T, H, W) to (H, W) = ``size``, frame by frame.

    A side that is too long is max-pooled, one that is too short repeats its cells.
    """
    size, feat_size = tuple(size), tuple(feat.shape[-2:])
    if feat_size == size:
        return feat
    planes = feat.flatten(1, 2)
    pooled = tuple(map(min, feat_size, size))
    if pooled != feat_size:
        planes = F.adaptive_max_pool2d(planes, pooled)
    if pooled != size:
        planes = F.interpolate(planes, size)
    return planes.unflatten(1, feat.shape[1:3])
