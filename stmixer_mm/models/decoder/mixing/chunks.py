"""Adaptive mixing, some groups at a time.

Both linear maps of the mixing have large weights. What a CPU computes for all groups at
once overflows its cache, and is more than its allocator keeps for the next call; so a
chunk of weights is generated, used and projected before the next one. Of the
intermediate results, only the generated weights are kept for the backward pass: mixed
samples are computed again. Products have the type that autocast would give them.

Shapes: N rows, K inputs, M outputs.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stmixer_mm.compat import prefers_convolutions
from stmixer_mm.models.precision import products_dtype


def mix_in_chunks(
    mix_groups: Callable[[Tensor, Tensor], Tensor],
    samples: Tensor,
    queries: Tensor,
    weight_generator: nn.Linear,
    out_proj: nn.Linear,
) -> Tensor:
    """``out_proj(mix_groups(samples, weight_generator(queries)))``.

    A chunk is one group on a CPU, all of them elsewhere.

    Args:
        mix_groups: Of samples (N, g, ...) and weights (N, g * k) to (N, g * m), each
            group on its own; a function of these two tensors alone.
        samples: (B, Q, G, ...)
        queries: (B, Q, K)
        weight_generator: K to G * k.
        out_proj: G * m to M.

    Returns:
        (B, Q, M)
    """
    dtype = products_dtype(queries)
    num_chunks = samples.size(2) if samples.device.type == 'cpu' else 1
    inputs = (
        queries.flatten(0, 1).to(dtype),
        samples.flatten(0, 1).to(dtype),
        weight_generator.weight,
        weight_generator.bias,
        out_proj.weight,
    )
    with torch.autocast(samples.device.type, enabled=False):
        if torch.is_grad_enabled():
            mixed = _Mixing.apply(mix_groups, num_chunks, *inputs)
        else:
            mixed = _mix(mix_groups, num_chunks, *inputs)
        mixed = mixed + out_proj.bias
    return mixed.unflatten(0, queries.shape[:2])


class _Chunk(NamedTuple):
    """What belongs to the same groups, or the gradients of that."""

    samples: Tensor  # (N, g, ...)
    in_weight: Tensor  # (g * k, K)
    in_bias: Tensor  # (g * k,)
    out_weight: Tensor  # (M, g * m)


class _Mixing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, mix_groups, num_chunks, queries, *inputs):
        generated = []
        mixed = _mix(mix_groups, num_chunks, queries, *inputs, keep=generated.append)
        ctx.mix_groups, ctx.num_chunks = mix_groups, num_chunks
        ctx.save_for_backward(queries, *inputs, *generated)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        queries, *saved = ctx.saved_tensors
        inputs, generated = saved[: -ctx.num_chunks], saved[-ctx.num_chunks :]
        queries_grad = torch.zeros_like(queries)
        inputs_grads = [torch.empty_like(each) for each in inputs]
        for chunk, chunk_grad, made in zip(
            _chunks(ctx.num_chunks, *inputs),
            _chunks(ctx.num_chunks, *inputs_grads),
            generated,
            strict=True,
        ):
            leaves = [each.detach().requires_grad_() for each in (chunk.samples, made)]
            with torch.enable_grad():
                mixed = ctx.mix_groups(*leaves)
            _write_product(grad.t(), mixed.detach(), chunk_grad.out_weight)
            mixed_grad = _product_of_transposed(grad, chunk.out_weight)
            samples_grad, made_grad = torch.autograd.grad(mixed, leaves, mixed_grad)
            chunk_grad.samples.copy_(samples_grad)
            queries_grad += _product_of_transposed(made_grad, chunk.in_weight)
            _write_product(made_grad.t(), queries, chunk_grad.in_weight)
            chunk_grad.in_bias.copy_(made_grad.sum(dim=0))
        return None, None, queries_grad, *inputs_grads


def _mix(
    mix_groups: Callable[[Tensor, Tensor], Tensor],
    num_chunks: int,
    queries: Tensor,
    *inputs: Tensor,
    keep: Callable[[Tensor], object] = lambda generated: None,
) -> Tensor:
    """(N, M); what is generated for each chunk goes to ``keep``."""
    mixed = 0
    for chunk in _chunks(num_chunks, *inputs):
        generated = _product(queries, chunk.in_weight, chunk.in_bias)
        keep(generated)
        mixed += _product(mix_groups(chunk.samples, generated), chunk.out_weight)
    return mixed


def _chunks(num_chunks: int, *inputs: Tensor) -> Iterator[_Chunk]:
    """Views of all groups' samples, weights and biases: the fields of a chunk."""
    dims = _Chunk(samples=1, in_weight=0, in_bias=0, out_weight=1)
    by_field = (
        each.chunk(num_chunks, dim) for each, dim in zip(inputs, dims, strict=True)
    )
    return itertools.starmap(_Chunk, zip(*by_field, strict=True))


def _product(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(N, K) by (M, K): (N, M)"""
    weight = weight.to(inputs.dtype)
    bias = None if bias is None else bias.to(inputs.dtype)
    if not prefers_convolutions(inputs):
        return F.linear(inputs, weight, bias)
    return _as_rows(F.conv2d(_as_image(inputs), weight[..., None, None], bias))


def _product_of_transposed(inputs: Tensor, weight: Tensor) -> Tensor:
    """(N, M) by (M, K): (N, K)"""
    weight = weight.to(inputs.dtype)
    if not prefers_convolutions(inputs):
        return inputs @ weight
    shape = (1, weight.size(1), 1, inputs.size(0))
    kernels = weight[..., None, None]
    return _as_rows(torch.nn.grad.conv2d_input(shape, kernels, _as_image(inputs)))


def _write_product(left: Tensor, right: Tensor, out: Tensor) -> None:
    if out.dtype == left.dtype:
        torch.mm(left, right, out=out)
    else:
        out.copy_(left @ right)


def _as_image(rows: Tensor) -> Tensor:
    """(N, K) -> (1, K, 1, N), in the same memory: channels last."""
    return rows.contiguous()[None, None].permute(0, 3, 1, 2)


def _as_rows(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).flatten(0, 2)
