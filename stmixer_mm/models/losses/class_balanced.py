"""Weights of classes by how often they occur.

Shapes: n persons, A classes.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from stmixer_mm.errors import UserError
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class ClassBalancedLoss(nn.Module):
    """A loss whose classes are weighted by their effective number of samples.

    Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.
    A column of a multi-label loss, its positives and its negatives, has one weight.

    Args:
        loss: Config of a loss that takes a weight for each element, e.g.
            ``mmdet.FocalLoss``.
        class_counts: How many samples of each of the A classes there are; the host's
            dummy class 0 is none of them.
        beta: In [0, 1); 0 weighs all classes alike, near 1 by their inverse counts.

    Raises:
        UserError: An argument is out of range, or A is another than the logits'.
    """

    def __init__(
        self, *, loss: dict, class_counts: Sequence[int], beta: float = 0.999
    ) -> None:
        super().__init__()
        if not 0 <= beta < 1:
            raise UserError(f'beta={beta} is not in [0, 1); set it to 0.999 or so.')
        if min(class_counts, default=0) < 1:
            raise UserError(
                f'class_counts={list(class_counts)} has a class without a sample, whose '
                'effective number is 0; give each class at least 1.'
            )
        self.loss = MODELS.build(loss)
        self.use_sigmoid = getattr(self.loss, 'use_sigmoid', True)
        self.class_weights = class_balanced_weights(class_counts, beta)

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
            weight: Further factor of each element, (n, A).
            avg_factor: What to divide the sum by, instead of n A.
            reduction_override: Instead of the loss's ``reduction``.
        """
        if pred.size(-1) != len(self.class_weights):
            raise UserError(
                f'class_counts has {len(self.class_weights)} entries but there are '
                f'logits of {pred.size(-1)} classes; give one count for each action.'
            )
        weights = pred.new_tensor(self.class_weights).expand_as(pred)
        return self.loss(
            pred,
            target,
            weight=weights if weight is None else weights * weight,
            avg_factor=avg_factor,
            reduction_override=reduction_override,
        )


def class_balanced_weights(class_counts: Sequence[int], beta: float) -> list[float]:
    """1 / (1 - beta^count) of each class, scaled to a mean of 1."""
    log_beta = math.log(beta) if beta else -math.inf
    inverse = [-1 / math.expm1(count * log_beta) for count in class_counts]
    mean = sum(inverse) / len(inverse)
    return [value / mean for value in inverse]
