"""VideoMAE's vision transformer with activation checkpointing."""

from inspect import signature

import torch
from mmaction.models.backbones.vit_mae import Block, VisionTransformer
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from stmixer_mm.errors import UserError, nearest
from stmixer_mm.registry import MODELS


class _CheckpointedBlock(Block):
    """A block whose activations are recomputed in the backward pass."""

    def forward(self, tokens: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(tokens)
        return checkpoint(super().forward, tokens, use_reentrant=False)


@MODELS.register_module()
class CheckpointedVisionTransformer(VisionTransformer):
    """The host's :class:`mmaction.models.VisionTransformer`, trained in less RAM.

    Args:
        with_cp: Recompute each block in the backward pass instead of storing it.
        **kwargs: Arguments of the host's class, which would ignore a wrong name.
    """

    def __init__(self, *, with_cp: bool = True, **kwargs) -> None:
        parameters = signature(VisionTransformer).parameters
        for name in kwargs.keys() - parameters:
            raise UserError(
                f'CheckpointedVisionTransformer has no argument {name!r}'
                f'{nearest(name, parameters) or f"; it takes {[*parameters]}."}'
            )
        super().__init__(**kwargs)
        if self.return_feat_map:
            self.fc_norm = None  # of means; it would get no gradient
        if with_cp:
            for block in self.blocks:
                # A change of class, so that the parameters keep their names.
                block.__class__ = _CheckpointedBlock
