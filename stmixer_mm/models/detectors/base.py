"""The base of all detectors: clips to feature maps."""

import inspect
from abc import abstractmethod
from collections.abc import Sequence

from mmdet.models.detectors import BaseDetector
from mmengine.model import Sequential
from torch import Tensor, nn

from stmixer_mm.compat import exact_convolutions
from stmixer_mm.models.necks.levels import as_levels
from stmixer_mm.registry import MODELS


class ClipDetector(BaseDetector):
    """A backbone and a neck, whose feature maps a subclass reads.

    As in mmdet, ``forward(inputs, data_samples, mode)`` is :meth:`loss`,
    :meth:`predict` or, for ``mode='tensor'``, :meth:`_forward`.

    Args:
        backbone: Clips (B, 3, T_in, H, W) to one feature map or several.
        neck: These to ``feats``, L levels (B, C, T, H_l, W_l), finest first. A list of
            necks is run one after the other; None is for backbones that need none. The
            ``in_channels`` may be left out where the backbone has ``channels``.
        **kwargs: ``data_preprocessor``, samples of the loader to clips; ``init_cfg``,
            by which a pretrained recogniser's checkpoint fills the backbone.
    """

    num_classes: int  # A + 1, with the host's dummy class 0
    num_classes_key = 'model.head.num_classes'  # where a config sets it

    def __init__(self, *, backbone: dict, neck: dict | list | None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.backbone = MODELS.build(backbone)
        channels = getattr(self.backbone, 'channels', None)
        neck = neck if channels is None else _with_channels(neck, channels)
        self.neck = None if neck is None else MODELS.build(neck)

    @abstractmethod
    def check_feats(self, feats: Sequence[Tensor], pad_shape: tuple[int, int]) -> None:
        """Raise ``UserError`` where the shapes of feats do not fit what reads them."""

    @property
    def path(self) -> list[nn.Module]:
        """The backbone and each neck, in the order in which they run."""
        necks = self.neck if type(self.neck) is Sequential else [self.neck]
        return [self.backbone, *filter(None, necks)]

    def extract_feat(self, inputs: Tensor) -> list[Tensor]:
        """Clips (B, 3, T_in, H, W) to L levels (B, C, T, H_l, W_l)."""
        feats = inputs
        with exact_convolutions(inputs.device.type):
            for part in self.path:
                feats = part(feats)
        return as_levels(feats)


def _with_channels(
    neck: dict | list | None, channels: Sequence[int]
) -> dict | list | None:
    """Config of a neck with the ``in_channels`` that it takes and does not name."""
    if isinstance(neck, list):
        return [_with_channels(neck[0], channels), *neck[1:]]
    if neck is None or 'in_channels' in neck:
        return neck
    arguments = inspect.signature(MODELS.get(neck['type'])).parameters
    return dict(neck, in_channels=channels) if 'in_channels' in arguments else neck
