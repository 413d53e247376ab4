"""Linear maps with large weights, part by part.

What a CPU computes for all parts at once overflows its cache, and is more memory than
its allocator keeps for the next call. The gradient of the weights is written in place,
part by part. Products are computed in the inputs' type, weights are cast to it.

Shapes: N rows, K inputs, M outputs, of all parts.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from stmixer_mm.compat import prefers_convolutions


def linear_to_parts(
    inputs: Tensor, weight: Tensor, bias: Tensor, num_parts: int
) -> Iterable[Tensor]:
    """``F.linear(inputs, weight, bias).chunk(num_parts, dim=1)``.

    Args:
        inputs: (N, K)
        weight: (M, K), M a multiple of ``num_parts``.
        bias: (M,)

    Returns:
        ``num_parts`` of (N, M / num_parts), each made when it is asked for where no
        gradients are needed.
    """
    if torch.compiler.is_compiling():
        return _product(inputs, weight, bias).chunk(num_parts, dim=1)
    if torch.is_grad_enabled():
        return _LinearToParts.apply(inputs, weight, bias, num_parts)
    return _products(inputs, weight, bias, num_parts)


def linear_of_parts(
    make_part: Callable[..., Tensor],
    inputs: Iterable[tuple[Tensor, ...]],
    weight: Tensor,
    num_parts: int,
) -> Tensor:
    """``F.linear(torch.cat([make_part(*each) for each in inputs], dim=1), weight)``.

    The parts are not kept for the backward pass but made again.

    Args:
        make_part: A function of tensors alone; returns (N, K / num_parts).
        inputs: Its arguments, for each part.
        weight: (M, K)
        num_parts: How many there are.

    Returns:
        (N, M)
    """
    if torch.compiler.is_compiling():
        return _product(torch.cat([make_part(*each) for each in inputs], dim=1), weight)
    if torch.is_grad_enabled():
        return _LinearOfParts.apply(make_part, num_parts, weight, *sum(inputs, ()))
    return _sum_of_products((make_part(*each) for each in inputs), weight, num_parts)


class _LinearToParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, weight, bias, num_parts):
        ctx.save_for_backward(inputs, weight)
        ctx.num_parts = num_parts
        return tuple(_products(inputs, weight, bias, num_parts))

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        inputs, weight = ctx.saved_tensors
        inputs_grad = sum(
            _product_of_transposed(grad, part)
            for grad, part in zip(grads, weight.chunk(ctx.num_parts), strict=True)
        )
        weight_grad = torch.empty_like(weight)
        for grad, part in zip(grads, weight_grad.chunk(ctx.num_parts), strict=True):
            _write_product(grad.t(), inputs, part)
        bias_grad = torch.cat([grad.sum(dim=0) for grad in grads]).to(weight.dtype)
        return inputs_grad, weight_grad, bias_grad, None


class _LinearOfParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx, make_part, num_parts, weight, *inputs):
        ctx.save_for_backward(weight, *inputs)
        ctx.make_part, ctx.num_parts = make_part, num_parts
        parts = (make_part(*each) for each in _groups(inputs, num_parts))
        return _sum_of_products(parts, weight, num_parts)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        weight, *inputs = ctx.saved_tensors
        weight_grad = torch.empty_like(weight)
        inputs_grads = []
        for each, part_weight, part_weight_grad in zip(
            _groups(inputs, ctx.num_parts),
            weight.chunk(ctx.num_parts, dim=1),
            weight_grad.chunk(ctx.num_parts, dim=1),
            strict=True,
        ):
            each = [tensor.detach().requires_grad_() for tensor in each]
            with torch.enable_grad():
                part = ctx.make_part(*each)
            _write_product(grad.t(), part.detach(), part_weight_grad)
            part_grad = _product_of_transposed(grad, part_weight)
            inputs_grads += torch.autograd.grad(part, each, part_grad)
        return None, None, weight_grad, *inputs_grads


def _groups(tensors: Iterable[Tensor], num_groups: int) -> Iterator[tuple[Tensor, ...]]:
    return zip(*[iter(tensors)] * (len(tensors) // num_groups), strict=True)


def _products(
    inputs: Tensor, weight: Tensor, bias: Tensor, num_parts: int
) -> Iterator[Tensor]:
    parts = zip(weight.chunk(num_parts), bias.chunk(num_parts), strict=True)
    return (_product(inputs, *part) for part in parts)


def _sum_of_products(parts: Iterable[Tensor], weight: Tensor, num_parts: int) -> Tensor:
    weights = weight.chunk(num_parts, dim=1)
    return sum(_product(*part) for part in zip(parts, weights, strict=True))


def _product(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(N, K) by (M, K): (N, M)"""
    weight = weight.to(inputs.dtype)
    bias = None if bias is None else bias.to(inputs.dtype)
    if torch.compiler.is_compiling() or not prefers_convolutions(inputs):
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
