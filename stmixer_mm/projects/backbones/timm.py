"""Backbones of timm for images.

Shapes: N images of H x W pixels, C channels of h x w cells.
"""

from mmengine.model import BaseModule
from torch import Tensor

from stmixer_mm.errors import blame
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class TimmBackbone(BaseModule):
    """A backbone of timm for images, ``dict(type='timm/NAME', …)`` in configs.

    ``channels`` and ``strides`` describe its levels, finest first. Its modules are those
    of ``model``.

    Args:
        name: A model of timm that yields levels, such as ``resnet18``.
        options: Arguments of ``timm.create_model``: ``pretrained=True`` fetches weights,
            with ``pretrained_cfg_overlay=dict(file=…)`` they come from a file.

    Raises:
        UserError: timm is not installed, or has no such backbone.
    """

    def __init__(self, *, name: str, **options) -> None:
        super().__init__()
        remedy = "correct it, or pip install 'stmixer_mm[timm]'"
        with blame(f"The backbone 'timm/{name}' cannot be built", remedy):
            import timm

            self.model = timm.create_model(name, features_only=True, **options)
            self.channels = self.model.feature_info.channels()
            self.strides = self.model.feature_info.reduction()

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> levels (N, C, h, w)"""
        levels = self.model(images)
        if getattr(self.model, 'output_fmt', None) == 'NHWC':  # as of Swin
            return [level.permute(0, 3, 1, 2) for level in levels]
        return levels
