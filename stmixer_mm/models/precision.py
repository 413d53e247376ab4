"""Precision of values and matrix products, autocast included, and their library."""

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
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


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(N, K) by (M, K) to (N, M), of the type of the inputs, by the faster library."""
    weight = weight.to(inputs.dtype)
    bias = None if bias is None else bias.to(inputs.dtype)
    if weight.is_mkldnn or prefers_onednn(inputs):
        return onednn_linear(inputs, weight, bias)
    return F.linear(inputs, weight, bias)


def write_product(first: Tensor, second: Tensor, out: Tensor) -> None:
    """Write (M, N) by (N, K) to ``out``, (M, K)."""
    if out.dtype == first.dtype and not prefers_onednn(first):
        torch.mm(first, second, out=out)
    else:
        out.copy_(linear(first, second.t()))


def prefers_onednn(inputs) -> bool:
    """True if a matrix product is faster in oneDNN, which PyTorch does not check.

    PyTorch hands float32 products on x86 to MKL, which on AMD's processors reaches
    about half of oneDNN's speed (torch 2.13, MKL 2024.2, Zen 5). Can go when PyTorch
    chooses by processor.
    """
    return (
        inputs.device.type == 'cpu'
        and inputs.dtype == torch.float32
        and inputs.numel() > 0
        and packs_linears()
        and _has_amd_processor()
    )


def onednn_linear(inputs, weight, bias=None):
    """``F.linear`` by the operator that ``torch.compile`` turns linear layers into.

    Matrices that are contiguous neither by rows nor by columns are copied: for those
    oneDNN has only its reference implementation.
    """

    def by_rows_or_columns(matrix):
        is_supported = matrix.is_contiguous() or matrix.t().is_contiguous()
        return matrix if is_supported else matrix.contiguous()

    inputs, weight = by_rows_or_columns(inputs), by_rows_or_columns(weight)
    return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, 'none', [], '')


def packs_linears() -> bool:
    """True if PyTorch has oneDNN for x86, which :func:`onednn_linear` needs."""
    return torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()


def pack_linear(weight):
    """The weight of a linear layer in oneDNN's own layout, for :func:`onednn_linear`."""
    return torch.ops.mkldnn._reorder_linear_weight(weight)


@cache
def _has_amd_processor() -> bool:
    try:
        return 'AuthenticAMD' in Path('/proc/cpuinfo').read_text()
    except OSError:
        return False
