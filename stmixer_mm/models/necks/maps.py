"""What all necks for video do with the maps they are given.

Shapes: B clips, C channels, T frames, L levels; maps are finest first.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from stmixer_mm.errors import UserError


def as_maps(feats: Tensor | Sequence[Tensor], *, neck: str) -> list[Tensor]:
    """A backbone's one map, or its maps, as a list of maps (B, C, T, H_l, W_l).

    Raises:
        ValueError: One of them is no map of a clip.
    """
    maps = [feats] if isinstance(feats, Tensor) else list(feats)
    for level, feat in enumerate(maps):
        if feat.dim() != 5:
            raise UserError(
                f'Map {level} has shape {tuple(feat.shape)} but {neck} takes maps of '
                'video, (clips, channels, frames, height, width); use it on a backbone '
                'that keeps time, not inside a FramewiseNeck.'
            )
    return maps


def check_in_channels(in_channels: object, *, neck: str) -> None:
    """
    Raises:
        ValueError: It is no list of channels.
    """
    if not isinstance(in_channels, Sequence) or isinstance(in_channels, str):
        raise UserError(
            f'{neck} has in_channels={in_channels!r}; give a list of the channels of '
            f'each map, such as [{in_channels}].'
        )


def check_channels(
    maps: Sequence[Tensor], in_channels: Sequence[int], *, neck: str
) -> None:
    """
    Raises:
        ValueError: The maps do not have these channels, or there is another number of
            them.
    """
    channels = [feat.size(1) for feat in maps]
    if len(maps) != len(in_channels):
        raise UserError(
            f'{neck} is given {len(maps)} maps but has {len(in_channels)} in_channels; '
            f"set in_channels={channels}, or the backbone's out_indices to maps that "
            'fit.'
        )
    if channels != list(in_channels):
        raise UserError(
            f'The maps have {channels} channels but {neck} has in_channels='
            f'{list(in_channels)}; set in_channels={channels}.'
        )


def check_frames(maps: Sequence[Tensor], *, neck: str) -> None:
    """
    Raises:
        ValueError: The maps do not all have the same number of frames.
    """
    frames = [feat.size(2) for feat in maps]
    if len(set(frames)) > 1:
        raise UserError(
            f'The maps have {frames} frames but {neck} fuses maps of equal length; '
            f"put dict(type='ResampleTime', num_frames={frames[0]}) before it in a "
            'list of necks, or change the temporal strides of the backbone.'
        )


def resize(feat: Tensor, size: tuple[int, int], mode: str = 'nearest') -> Tensor:
    """(B, C, T, H, W) to (H, W) = ``size``, frame by frame.

    A side that is too long is max-pooled, one that is too short interpolated; 'trilinear'
    between maps of equal T is bilinear in each frame.
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


def fold_time(feat: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B * T, C, H, W)"""
    return feat.transpose(1, 2).flatten(0, 1)


def unfold_time(feat: Tensor, batch_size: int) -> Tensor:
    """(B * T, C, H, W) -> (B, C, T, H, W)"""
    return feat.unflatten(0, (batch_size, -1)).transpose(1, 2)
