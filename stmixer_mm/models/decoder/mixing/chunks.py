"""Adaptive mixing, some groups at a time.

Results for all groups at once would overflow a CPU's cache, and exceed what its
allocator keeps for the next call. So a chunk of weights is generated, used and
projected before the next one. Only the generated weights are kept for the backward
pass; mixed samples are computed again. Products have the type that autocast would give.

Shapes: N rows, K inputs, M outputs.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stmixer_mm.models.precision import (
    linear,
    pack_linear,
    products_dtype,
    write_product,
)


class Chunk(NamedTuple):
    weight: Tensor  # (k, K)
    bias: Tensor  # (k,)
    projection: Tensor  # (M, m)

    def __deepcopy__(self, memo: dict) -> 'Chunk':
        return self  # PyTorch cannot copy packed weights, and nothing changes them


def mix_in_chunks(
    mix_groups: Callable[[Tensor, Tensor], Tensor],
    samples: Tensor,
    queries: Tensor,
    weight_generator: nn.Linear,
    out_proj: nn.Linear,
    packed: Sequence[Chunk] = (),
) -> Tensor:
    """``out_proj(mix_groups(samples, weight_generator(queries)))``.

    A chunk is one group on a CPU, all of them elsewhere.

    Args:
        mix_groups: Samples (N, g, ...) and weights (N, g * k) to (N, g * m), each group
            on its own; a function of these two tensors alone.
        samples: (B, Q, G, ...)
        queries: (B, Q, K); the result is (B, Q, M).
        weight_generator: K to G * k.
        out_proj: G * m to M.
        packed: Instead of these weights, what :func:`pack_chunks` made of them.
    """
    dtype = packed[0].weight.dtype if packed else products_dtype(queries)
    num_chunks = samples.size(2) if samples.device.type == 'cpu' else 1
    weights = *_weights(weight_generator, out_proj), out_proj.bias
    rows = [tensor.flatten(0, 1).to(dtype) for tensor in (queries, samples)]
    with torch.autocast(samples.device.type, enabled=False):
        if not packed and torch.is_grad_enabled():
            mixed = _Mixing.apply(mix_groups, num_chunks, *rows, *weights)
        else:
            chunks = packed or _split(num_chunks, *weights[:-1])
            mixed = _mix(mix_groups, chunks, *rows, out_proj.bias)
    return mixed.unflatten(0, queries.shape[:2])


def pack_chunks(
    weight_generator: nn.Linear, out_proj: nn.Linear, num_chunks: int
) -> list[Chunk]:
    """Weights in oneDNN's own layout, for a CPU and without gradients.

    Without it, oneDNN and MKL bring them into such a layout at each call.
    """
    weights = _weights(weight_generator, out_proj)
    return [
        Chunk(pack_linear(weight), bias, pack_linear(projection))
        for weight, bias, projection in _split(num_chunks, *weights)
    ]


class _Mixing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, mix_groups, num_chunks, queries, samples, *weights):
        generated = []
        *weights, bias = weights
        chunks = _split(num_chunks, *weights)
        mixed = _mix(mix_groups, chunks, queries, samples, bias, keep=generated.append)
        ctx.mix_groups = mix_groups
        ctx.save_for_backward(queries, samples, *weights, *generated)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        queries, samples, in_weight, _, out_weight, *generated = ctx.saved_tensors
        samples_grad, out_weight_grad, generated_grad = _gradients_of_mixing(
            ctx.mix_groups, grad, samples, out_weight, generated
        )
        return (
            None,
            None,
            linear(generated_grad, in_weight.t()),
            samples_grad,
            linear(generated_grad.t(), queries.t()),
            generated_grad.sum(dim=0),
            out_weight_grad,
            grad.sum(dim=0, dtype=out_weight.dtype),
        )


def _gradients_of_mixing(
    mix_groups: Callable[[Tensor, Tensor], Tensor],
    grad: Tensor,
    samples: Tensor,
    out_weight: Tensor,
    generated: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of samples, projection and all generated weights, (N, G * k)."""
    samples_grad, out_weight_grad = map(torch.empty_like, (samples, out_weight))
    num_weights = sum(weights.size(1) for weights in generated)
    generated_grad = grad.new_empty(len(grad), num_weights)
    mixed_grad = linear(grad, out_weight.t())
    tensors = samples, mixed_grad, samples_grad, generated_grad, out_weight_grad
    parts = (tensor.chunk(len(generated), dim=1) for tensor in tensors)
    for weights, *chunk in zip(generated, *parts, strict=True):
        chunk_samples, chunk_mixed_grad, samples_out, weights_out, proj_out = chunk
        leaves = [leaf.detach().requires_grad_() for leaf in (chunk_samples, weights)]
        with torch.enable_grad():
            mixed = mix_groups(*leaves)
        write_product(grad.t(), mixed.detach(), proj_out)
        grads = torch.autograd.grad(mixed, leaves, chunk_mixed_grad)
        if len(generated) == 1:
            samples_grad, generated_grad = grads
            break
        samples_out.copy_(grads[0])
        weights_out.copy_(grads[1])
    return samples_grad, out_weight_grad, generated_grad


def _weights(weight_generator: nn.Linear, out_proj: nn.Linear) -> tuple[Tensor, ...]:
    return weight_generator.weight, weight_generator.bias, out_proj.weight


def _split(
    num_chunks: int, in_weight: Tensor, in_bias: Tensor, out_weight: Tensor
) -> list[Chunk]:
    return [
        Chunk(*parts)
        for parts in zip(
            in_weight.chunk(num_chunks),
            in_bias.chunk(num_chunks),
            out_weight.chunk(num_chunks, dim=1),
            strict=True,
        )
    ]


def _mix(
    mix_groups: Callable[[Tensor, Tensor], Tensor],
    chunks: Sequence[Chunk],
    queries: Tensor,
    samples: Tensor,
    bias: Tensor,
    *,
    keep: Callable[[Tensor], object] = lambda generated: None,
) -> Tensor:
    """(N, M); ``keep`` gets the weights that are generated for each chunk."""
    mixed = None
    sample_chunks = samples.chunk(len(chunks), dim=1)
    for chunk_samples, chunk in zip(sample_chunks, chunks, strict=True):
        generated = linear(queries, chunk.weight, chunk.bias)
        keep(generated)
        product = linear(
            mix_groups(chunk_samples, generated),
            chunk.projection,
            bias if mixed is None else None,
        )
        mixed = product if mixed is None else mixed.add_(product)
    return mixed
