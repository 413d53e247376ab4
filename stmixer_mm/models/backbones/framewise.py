"""Backbones for images, run on each frame of a clip.

Shapes: B clips, T frames, H and W pixels, C channels of h x w cells.
"""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from stmixer_mm.errors import UserError
from stmixer_mm.models.folding import fold_time, unfold_time
from stmixer_mm.models.necks.levels import as_levels
from stmixer_mm.registry import MODELS


class ImageBackbone(BaseModule):
    """Base of the backbones that run one for images on the frames of clips.

    Args:
        backbone: Config of the backbone for images, such as
            ``dict(type='mmdet.ResNet', …)`` or ``dict(type='timm/resnet18')``.
        norm_eval: Do not train batch norms, neither statistics nor weights.
        frozen: Names of submodules of the backbone for images that are not trained.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.
    """

    def __init__(
        self,
        *,
        backbone: dict,
        norm_eval: bool = False,
        frozen: Sequence[str] = (),
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.norm_eval = norm_eval
        for name in frozen:
            self.backbone.get_submodule(name).requires_grad_(False)
        self.train()

    @property
    def channels(self) -> list[int] | None:
        """Channels of the levels, where the backbone tells them."""
        return getattr(self.backbone, 'channels', None)

    def train(self, mode: bool = True) -> 'ImageBackbone':
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval().requires_grad_(False)
        return self


@MODELS.register_module()
class FramewiseBackbone(ImageBackbone):
    """Run a 2-D backbone on all frames as one batch.

    Backbones that look at neighbouring frames (TSM, TANet) find the frames of a clip
    one after the other, as in their recognisers. Checkpoints of recognisers fit.

    Args:
        **kwargs: See :class:`ImageBackbone`.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        modules = self.backbone.modules()
        segments = (getattr(module, 'num_segments', None) for module in modules)
        # Of those that look at neighbouring frames, the outermost comes first.
        self.num_segments = next(filter(None, segments), None)

    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, T, H, W) -> levels (B, C, T, h, w), in the backbone's order

        A backbone that pools time yields fewer frames.
        """
        frames = clips.size(2)
        if self.num_segments not in (None, frames):  # it would mix clips
            raise UserError(
                f'{type(self.backbone).__name__} has num_segments={self.num_segments} '
                f'but the clips have {frames} frames; set the one to the other.'
            )
        feats = as_levels(self.backbone(fold_time(clips)))
        return tuple(unfold_time(feat, clips.size(0)) for feat in feats)
