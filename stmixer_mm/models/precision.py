"""Precision of values and of products, under autocast too."""

import torch
from torch import Tensor

from stmixer_mm.compat import autocast_dtype


def full_precision(values: Tensor) -> Tensor:
    """Values in float32, or in the wider type that they already have."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def products_dtype(values: Tensor) -> torch.dtype:
    """The type in which ``F.linear`` multiplies these values, autocast included."""
    if values.dtype == torch.float64:
        return values.dtype
    return autocast_dtype(values.device.type) or values.dtype
