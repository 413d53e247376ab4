"""STMixer's sampling and mixing step by step, as the method is usually written down.

One ``grid_sample`` per level with the points repeated over time, every sample of every
frame stored, then the two means; weights split, reshaped and multiplied. The tests
compare the decoder with it, and ``tools/benchmark.py`` measures against it.

Shapes: B clips, Q queries, G groups, P points of a group, L levels, T frames,
C channels, c channels of a group (C = G * c).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stmixer_mm.models.decoder import stmixer_decoder
from stmixer_mm.models.decoder.mixing import AdaptiveMixing

FINEST_LEVEL = 3.0  # log2 of the scale that belongs to a map of stride 4


def sample_level(points_xy: Tensor, feat: Tensor, weights: Tensor) -> Tensor:
    """Sample one map.

    Args:
        points_xy: [0, 1] of the map's extent, (B, Q, G, P, 2).
        feat: (B, C, T, H, W)
        weights: (B, Q, G, P)

    Returns:
        (B, c, G, T, P, Q)
    """
    batch, queries, groups, points, _ = points_xy.shape
    channels, frames = feat.shape[1:3]
    grid = points_xy.permute(0, 2, 1, 3, 4).contiguous().flatten(0, 1)
    grid = grid.repeat(frames, 1, 1, 1) * 2.0 - 1.0
    value = feat.reshape(batch * groups, channels // groups, *feat.shape[2:])
    value = value.permute(2, 0, 1, 3, 4).flatten(0, 1)
    sampled = F.grid_sample(
        value, grid, mode='bilinear', padding_mode='zeros', align_corners=False
    )  # (T * B * G, c, Q, P)
    weights = weights.permute(0, 2, 1, 3).flatten(0, 1).unsqueeze(1)
    sampled *= weights.repeat(frames, 1, 1, 1)
    sampled = sampled.view(frames, batch, groups, -1, queries, points)
    return sampled.permute(1, 3, 2, 0, 5, 4)


def sample_4d(points: Tensor, feats: Sequence[Tensor], strides: Sequence[int]):
    """Sample all maps at points (x, y, z), (B, Q, G, P, 3): (B, Q, G, T, P, c)."""
    level = points[..., 2] - FINEST_LEVEL
    distance = level.unsqueeze(-1) - torch.arange(len(feats), device=points.device)
    weights = torch.softmax(-(distance.pow(2) / 2.0).abs(), dim=-1)
    batch, queries, groups, num_points, _ = points.shape
    channels, frames = feats[0].shape[1:3]
    sampled = points.new_zeros(
        batch, channels // groups, groups, frames, num_points, queries
    )
    for index, (feat, stride) in enumerate(zip(feats, strides, strict=True)):
        extent = points.new_tensor([feat.size(4), feat.size(3)]) * stride
        sampled += sample_level(points[..., :2] / extent, feat, weights[..., index])
    return sampled.permute(0, 5, 2, 3, 4, 1)


class LiteralSampler:
    """Takes the place of a :class:`stmixer_mm.models.decoder.Sampler`."""

    def __init__(self, feats, *, strides, num_groups=None, backend=None) -> None:
        self.feats, self.strides = feats, strides

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(points.device.type, enabled=False):
            feats = [feat.to(points.dtype) for feat in self.feats]
            sampled = sample_4d(points, feats, self.strides)
            return sampled.mean(dim=3), sampled.mean(dim=4)


def mix(
    samples: Tensor,
    queries: Tensor,
    *,
    weight_generator: nn.Module,
    out_proj: nn.Module,
    out_points: int,
) -> Tensor:
    """Adaptive mixing of (B, Q, G, N, c) by (B, Q, C)."""
    batch, num_queries, groups, rows, channels = samples.shape
    weights = weight_generator(queries).reshape(batch * num_queries, groups, -1)
    channel_weights, row_weights = weights.split(
        [channels * channels, out_points * rows], dim=2
    )
    channel_weights = channel_weights.reshape(-1, groups, channels, channels)
    row_weights = row_weights.reshape(-1, groups, out_points, rows)
    mixed = samples.reshape(-1, groups, rows, channels)
    mixed = torch.matmul(mixed, channel_weights)
    mixed = F.relu(F.layer_norm(mixed, [rows, channels]))
    mixed = torch.matmul(row_weights, mixed)
    mixed = F.relu(F.layer_norm(mixed, [out_points, channels]))
    return queries + out_proj(mixed.reshape(batch, num_queries, -1))


def _literal_mixing(module: AdaptiveMixing, samples: Tensor, queries: Tensor) -> Tensor:
    return mix(
        samples,
        queries,
        weight_generator=module.weight_generator,
        out_proj=module.out_proj,
        out_points=module.out_points,
    )


@contextmanager
def literally() -> Iterator[None]:
    """Let every STMixer decoder sample and mix literally."""
    with (
        patch.object(stmixer_decoder, 'make_sampler', LiteralSampler),
        patch.object(AdaptiveMixing, 'forward', _literal_mixing),
    ):
        yield
