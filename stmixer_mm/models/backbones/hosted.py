"""What backbones that wrap one of a host share.

Shapes: B clips, T frames, C channels of a map of h x w cells.
"""

from mmengine.model import BaseModule
from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.registry import build_hosted


class HostedBackbone(BaseModule):
    """A backbone around another one, which stays as its host made it.

    The inner one is the attribute ``backbone``, as in the hosts' recognisers: their
    checkpoints fit the wrapper, with ``init_cfg=dict(type='Pretrained', …)``.

    Args:
        backbone: Config of the inner backbone.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.
    """

    def __init__(self, *, backbone: dict, init_cfg: dict | list | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.backbone = build_hosted(backbone)

    def expect(self, kind: type) -> None:
        """Refuse an inner backbone of another class."""
        if not isinstance(self.backbone, kind):
            raise UserError(
                f'{type(self).__name__} wraps a {kind.__name__}, not a '
                f"{self.inner_name}; use dict(type='mmaction.{kind.__name__}', …), or "
                'another wrapper.'
            )

    @property
    def inner_name(self) -> str:
        """Class of the inner backbone, for messages."""
        return type(self.backbone).__name__


def is_folded(feat: Tensor, batch_size: int) -> bool:
    """Whether it may be a map (B * T, C, h, w)."""
    is_map = isinstance(feat, Tensor) and feat.dim() == 4
    return is_map and len(feat) % batch_size == 0


def unfold_time(feat: Tensor, batch_size: int) -> Tensor:
    """(B * T, C, h, w) -> (B, C, T, h, w)"""
    return feat.unflatten(0, (batch_size, -1)).transpose(1, 2)


def describe_output(output: object) -> str:
    """What a module returned, for messages."""
    if isinstance(output, Tensor):
        return f'a tensor {tuple(output.shape)}'
    return f'a {type(output).__name__}'
