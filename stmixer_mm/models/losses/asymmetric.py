"""Asymmetric loss of multi-label classification.

Shapes: n persons, A classes.
"""

from typing import Literal

import torch.nn.functional as F
from mmdet.models.losses.utils import weight_reduce_loss
from torch import Tensor, nn

from stmixer_mm.errors import UserError
from stmixer_mm.registry import MODELS

TINY = 1e-8  # keeps the derivative of a power below 1 finite at 0


@MODELS.register_module()
class AsymmetricLoss(nn.Module):
    """Focal loss that lets go of easy negatives sooner than of positives.

    Ridnik et al., "Asymmetric Loss For Multi-Label Classification", ICCV 2021.

    Args:
        gamma_neg: Focusing exponent of absent classes.
        gamma_pos: Focusing exponent of present classes.
        clip: Probability below which an absent class costs nothing, in [0, 1).
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: Factor of the result.

    Raises:
        UserError: An argument is out of range.
    """

    use_sigmoid = True

    def __init__(
        self,
        *,
        gamma_neg: float = 4.0,
        gamma_pos: float = 0.0,
        clip: float = 0.05,
        reduction: Literal['none', 'mean', 'sum'] = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if min(gamma_neg, gamma_pos) < 0 or not 0 <= clip < 1:
            raise UserError(
                f'AsymmetricLoss takes gamma_neg={gamma_neg} and gamma_pos={gamma_pos} of '
                f'0 or more, and clip={clip} in [0, 1); correct the one that is not.'
            )
        self.gamma_neg = gamma_neg
        self.gamma_pos = gamma_pos
        self.clip = clip
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """
        Args:
            pred: Logits, (n, A).
            target: Multi-hot labels, (n, A).
            weight: Factor of each element, (n, A).
            avg_factor: What to divide the sum by, instead of n A.
            reduction_override: Instead of ``reduction``.
        """
        loss = asymmetric_loss(
            pred,
            target.type_as(pred),
            gamma_neg=self.gamma_neg,
            gamma_pos=self.gamma_pos,
            clip=self.clip,
        )
        reduction = reduction_override or self.reduction
        return self.loss_weight * weight_reduce_loss(
            loss, weight, reduction, avg_factor
        )


def asymmetric_loss(
    logits: Tensor, target: Tensor, *, gamma_neg: float, gamma_pos: float, clip: float
) -> Tensor:
    """Loss of each element (paper, equations 4 to 7)."""
    absence = (-logits).sigmoid()
    shifted = (1 - absence - clip).clamp(min=TINY)
    # Without a margin, 1 - p underflows where its logarithm does not.
    log_absence = (1 - shifted).log() if clip else F.logsigmoid(-logits)
    present = absence.clamp(min=TINY) ** gamma_pos * F.logsigmoid(logits)
    absent = shifted**gamma_neg * log_absence
    return -(target * present + (1 - target) * absent)
