"""Backbones for images, run on each frame of a clip.

Shapes: B clips, T frames, H and W pixels, C channels of a map of h x w cells.
"""

from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.models.backbones.hosted import (
    HostedBackbone,
    describe_output,
    is_folded,
    unfold_time,
)
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class FramewiseBackbone(HostedBackbone):
    """Run a 2-D backbone on all frames as one batch.

    Fits every backbone that turns images into one map or several: mmdet's, and
    mmaction2's for frames. Those of the latter that look at neighbouring frames (TSM,
    TANet) find the frames of a clip one after the other, as in their recognisers.

    Args:
        backbone: Config of the backbone, such as ``dict(type='mmdet.ResNet', …)``.
        init_cfg: Initialisation, see :class:`.HostedBackbone`.

    Raises:
        ValueError: The backbone is made for another number of frames, or does not
            yield maps of the frames.
    """

    def __init__(self, *, backbone: dict, init_cfg: dict | list | None = None) -> None:
        super().__init__(backbone=backbone, init_cfg=init_cfg)
        # Which those that look at neighbouring frames call so, the outermost first.
        self.num_segments = next(
            (
                module.num_segments
                for module in self.backbone.modules()
                if hasattr(module, 'num_segments')
            ),
            None,
        )

    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, T, H, W) -> maps (B, C, T, h, w), in the backbone's order

        A backbone that pools time yields fewer frames.
        """
        frames = clips.size(2)
        if self.num_segments not in (None, frames):
            raise UserError(
                f'{self.inner_name} has num_segments={self.num_segments} but the clips '
                f'have {frames} frames; set num_segments={frames} in the config of the '
                'backbone, or change the clip length.'
            )
        feats = self.backbone(clips.transpose(1, 2).flatten(0, 1))
        feats = [feats] if isinstance(feats, Tensor) else feats
        limit = len(clips) * frames
        for feat in feats:
            if not is_folded(feat, len(clips)) or len(feat) > limit:
                raise UserError(
                    f'{self.inner_name} turned {limit} frames into '
                    f'{describe_output(feat)}, not into a map (frames, channels, '
                    'height, width); use a backbone that yields a map of each frame, '
                    'or tap one inside it with TappedBackbone.'
                )
        return tuple(unfold_time(feat, len(clips)) for feat in feats)
