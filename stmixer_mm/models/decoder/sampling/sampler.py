"""Sample points of the queries, and the base of the sampling back ends.

Shapes: B clips, Q queries, G groups, P points of a group, L levels, T frames,
C channels, c channels of a group (C = G * c).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import log2

import torch
import torch.nn.functional as F
from torch import Tensor

from stmixer_mm.compat import stack_numbers
from stmixer_mm.models.precision import full_precision, products_dtype
from stmixer_mm.models.strides import level_sides


def make_sample_points(offsets: Tensor, boxes_xyzr: Tensor, size: Tensor) -> Tensor:
    """Place points relative to their boxes (paper, section 3.2).

    Args:
        offsets: In box widths, box heights and octaves of scale, (B, Q, G, P, 3).
        boxes_xyzr: (B, Q, 4).
        size: Their :func:`.box_size`.

    Returns:
        x, y in pixels of the padded clip, z = log2 of a scale in pixels, like offsets.
    """
    centre = full_precision(boxes_xyzr)[:, :, None, None, :3]
    scale = F.pad(size, (0, 1), value=1.0)[:, :, None, None]
    return centre + full_precision(offsets) * scale


def level_weights(z: Tensor, levels_z: Tensor) -> Tensor:
    """Soft assignment (..., L) of scales to the levels of a pyramid.

    Args:
        z: log2 of a scale in pixels, (...).
        levels_z: The same of the levels, (L,).
    """
    # Levels come first, so that the inner loops are long.
    distance = full_precision(z) - levels_z.view(-1, *(1,) * z.dim())
    return (distance.square() * -0.5).softmax(dim=0).movedim(0, -1)


def join_cells(feats: Sequence[Tensor], num_groups: int, dtype: torch.dtype) -> Tensor:
    """L levels (B, C, T, H_l, W_l) as S cells with their frames, (B, G, S, T, c)."""
    grouped = [
        feat.to(dtype).flatten(3).unflatten(1, (num_groups, -1)) for feat in feats
    ]
    return torch.cat([feat.permute(0, 1, 4, 3, 2) for feat in grouped], dim=2)


class Sampler(ABC):
    """Samples of a feature pyramid, averaged over time and over points.

    Made once per batch of clips: what depends on the levels alone (time-means, tables)
    serves all stages. Subclasses compute the same two means and differ in speed only.
    Zeros outside a level, pixel centres at half integers. The same points serve every
    frame; group g samples its own channels.

    Args:
        feats: L levels (B, C, T, H_l, W_l), finest first.
        strides: Pixels of the padded clip per cell, one per level.
        num_groups: G; C is a multiple of it.
    """

    # Whether the levels may be half precision, as autocast has them.
    reads_half = False

    def __init__(
        self, feats: Sequence[Tensor], *, strides: Sequence[float], num_groups: int
    ) -> None:
        self.num_groups = num_groups
        self.num_frames = feats[0].size(2)
        self.level_sizes = [tuple(feat.shape[-2:]) for feat in feats]
        self.dtype = torch.promote_types(feats[0].dtype, torch.float32)
        # A level's scale is twice its stride.
        numbers = (
            *(log2(2 * stride) for stride in strides),
            *level_sides(self.level_sizes, strides),
        )
        numbers = stack_numbers(numbers, dtype=self.dtype, device=feats[0].device)
        self.levels_z = numbers[: len(strides)]
        self.extents = numbers[len(strides) :].view(-1, 2)
        if self.reads_half:
            self.dtype = products_dtype(feats[0])
        with torch.autocast(feats[0].device.type, enabled=False):
            self.lay_out(list(feats))

    @classmethod
    def is_available(cls, device: torch.device) -> bool:
        """True if this back end runs on a device, fast enough to be chosen for it."""
        return True

    @abstractmethod
    def lay_out(self, feats: list[Tensor]) -> None:
        """Keep the levels in the layout that :meth:`means` reads, as ``self.dtype``."""

    @abstractmethod
    def means(self, points_xy: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Both means; see :meth:`__call__`.

        Args:
            points_xy: Pixels of the padded clip, (B, Q, G, P, 2).
            weights: Level weights, (B, Q, G, P, L).
        """

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Means over the frames (B, Q, G, P, c) and the points (B, Q, G, T, c).

        Args:
            points: (x, y, z) from :func:`make_sample_points`, (B, Q, G, P, 3).
        """
        with torch.autocast(points.device.type, enabled=False):
            points_xy, z = points.split((2, 1), dim=-1)
            return self.means(points_xy, level_weights(z.squeeze(-1), self.levels_z))

    def normalise(self, points_xy: Tensor) -> Tensor:
        """Pixels to [0, 1] of each level's extent: (..., 2) -> (..., L, 2)."""
        return points_xy.unsqueeze(-2) / self.extents
