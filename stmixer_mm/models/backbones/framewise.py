"""Backbones for images, run on each frame of a clip.

Shapes: B clips, T frames, H and W pixels, C channels of h x w cells.
"""

from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.models.backbones.hosted import HostedBackbone
from stmixer_mm.models.folding import fold_time, unfold_time
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class FramewiseBackbone(HostedBackbone):
    """Run a 2-D backbone on all frames as one batch.

    Fits every backbone that turns images into feature maps: mmdet's, and mmaction2's
    for frames. Backbones that look at neighbouring frames (TSM, TANet) find the frames
    of a clip one after the other, as in their recognisers.

    Args:
        backbone: Config of the backbone, such as ``dict(type='mmdet.ResNet', …)``.
        init_cfg: Initialisation, see :class:`.HostedBackbone`.

    Raises:
        UserError: The backbone is made for another number of frames, or does not yield
            feature maps of the frames.
    """

    def __init__(self, *, backbone: dict, init_cfg: dict | list | None = None) -> None:
        super().__init__(backbone=backbone, init_cfg=init_cfg)
        # Of those that look at neighbouring frames, the outermost first.
        self.num_segments = next(
            (
                module.num_segments
                for module in self.backbone.modules()
                if hasattr(module, 'num_segments')
            ),
            None,
        )

    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, T, H, W) -> levels (B, C, T, h, w), in the backbone's order

        A backbone that pools time yields fewer frames.
        """
        frames = clips.size(2)
        if self.num_segments not in (None, frames):
            raise UserError(
                f'{self.inner_name} has num_segments={self.num_segments} but the clips '
                f'have {frames} frames; set num_segments={frames} or change the clip '
                'length.'
            )
        feats = self.backbone(fold_time(clips))
        feats = [feats] if isinstance(feats, Tensor) else feats
        limit = clips.size(0) * frames
        for feat in feats:
            if feat.dim() != 4 or feat.size(0) > limit or feat.size(0) % clips.size(0):
                raise UserError(
                    f'{self.inner_name} turned {limit} frames into '
                    f'{tuple(feat.shape)}, not (frames, channels, height, width); use '
                    'another backbone, or tap feature maps inside it: TappedBackbone.'
                )
        return tuple(unfold_time(feat, clips.size(0)) for feat in feats)
