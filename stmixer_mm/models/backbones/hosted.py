"""What backbones that wrap one of a host share."""

from mmengine.model import BaseModule
from torch import nn

from stmixer_mm.errors import UserError
from stmixer_mm.registry import MODELS


class HostedBackbone(BaseModule):
    """A backbone around another one, which stays as its host made it.

    The inner one is the attribute ``backbone``, as in the hosts' recognisers: their
    checkpoints fit the wrapper, with ``init_cfg=dict(type='Pretrained', …)``.

    Args:
        backbone: Config of the inner backbone.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.
    """

    host_class: type = nn.Module  # of the inner backbone

    def __init__(self, *, backbone: dict, init_cfg: dict | list | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        if not isinstance(self.backbone, self.host_class):
            name = self.host_class.__name__
            raise UserError(
                f'{type(self).__name__} wraps a {name}, not a {self.inner_name}; use '
                f"dict(type='mmaction.{name}', …), or another wrapper."
            )

    @property
    def inner_name(self) -> str:
        """Class of the inner backbone, for messages."""
        return type(self.backbone).__name__
