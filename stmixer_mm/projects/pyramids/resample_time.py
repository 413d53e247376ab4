"""Levels of any numbers of frames for necks that want one.

Shapes: B clips, C channels, T frames, L levels.
"""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor

from stmixer_mm.models.necks.levels import as_levels
from stmixer_mm.models.necks.projection import resample_time
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class ResampleTime(BaseModule):
    """Every level at the same number of frames; an adapter for a list of necks.

    Args:
        num_frames: T of all levels afterwards.
    """

    def __init__(self, *, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames

    def forward(self, feats: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Levels (B, C_l, T_l, H_l, W_l) -> (B, C_l, num_frames, H_l, W_l)"""
        return [resample_time(feat, self.num_frames) for feat in as_levels(feats)]
