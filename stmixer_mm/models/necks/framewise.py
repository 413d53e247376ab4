"""Necks for images, run on each frame of a clip.

Shapes: B clips, C channels, T frames, L levels in, N levels out.
"""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor

from stmixer_mm.models.folding import fold_time, unfold_time
from stmixer_mm.models.necks.levels import as_levels
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class FramewiseNeck(BaseModule):
    """Run a 2-D neck, such as mmdet's, with time folded into the batch.

    It may yield another number of levels, and other channels for each: a
    :class:`ChannelProjection3D` behind it in a list of necks brings them to one width.

    Args:
        neck: Config of the 2-D neck, such as ``dict(type='mmdet.FPN', …)``.
    """

    def __init__(self, *, neck: dict) -> None:
        super().__init__()
        self.neck = MODELS.build(neck)

    def forward(self, feats: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """(B, C_l, T, H_l, W_l) -> N levels (B, C_n, T, H_n, W_n), finest first"""
        levels = as_levels(feats)
        outs = as_levels(self.neck(tuple(fold_time(level) for level in levels)))
        # Some, such as YOLOV3Neck, begin with the coarsest.
        outs = sorted(outs, key=lambda out: -out.size(-2) * out.size(-1))
        return [unfold_time(out, levels[0].size(0)) for out in outs]
