"""What all necks for video do with the levels that they are given.

Shapes: B clips, C channels, T frames, L levels; levels are finest first.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from stmixer_mm.errors import UserError


def as_levels(feats: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """A backbone's one feature map, or its several ones, as a list."""
    return [feats] if isinstance(feats, Tensor) else list(feats)


def check_in_channels(in_channels: object, *, neck: str) -> None:
    """Refuse one number where a neck reads several levels."""
    if not isinstance(in_channels, Sequence) or isinstance(in_channels, str):
        raise UserError(
            f'{neck} has in_channels={in_channels!r}; give a list of the channels of '
            f'each level, such as [{in_channels}].'
        )


def check_channels(
    levels: Sequence[Tensor], in_channels: Sequence[int], *, neck: str
) -> None:
    """Refuse levels (B, C_l, T, H_l, W_l) of other channels, or more or less of them."""
    channels = [level.size(1) for level in levels]
    if channels != list(in_channels):
        raise UserError(
            f'{neck} is given {len(levels)} levels of {channels} channels but has '
            f'in_channels={list(in_channels)}; set in_channels={channels}, or the '
            "backbone's out_indices to levels that fit."
        )


def check_frames(levels: Sequence[Tensor], *, neck: str) -> None:
    """Refuse levels (B, C_l, T_l, H_l, W_l) that differ in T."""
    frames = [level.size(2) for level in levels]
    if len(set(frames)) > 1:
        raise UserError(
            f'The levels have {frames} frames but {neck} fuses levels of equal length; '
            f"put dict(type='ResampleTime', num_frames={frames[0]}) before it in a "
            'list of necks, or change the temporal strides of the backbone.'
        )


def resize(feat: Tensor, size: tuple[int, int], mode: str = 'nearest') -> Tensor:
    """(B, C, T, H, W) to (H, W) = ``size``, frame by frame.

    A side that is too long is max-pooled, one that is too short interpolated; 'trilinear'
    between levels of equal T is bilinear in each frame.
    """
    size = tuple(size)
    if tuple(feat.shape[-2:]) == size:
        return feat
    planes = feat.flatten(1, 2)
    pooled = tuple(min(sides) for sides in zip(planes.shape[-2:], size, strict=True))
    if pooled != tuple(planes.shape[-2:]):
        planes = F.adaptive_max_pool2d(planes, pooled)
    if pooled != size:
        planes = F.interpolate(
            planes, size, mode='bilinear' if mode == 'trilinear' else mode
        )
    return planes.unflatten(1, feat.shape[1:3])
