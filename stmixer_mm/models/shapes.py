"""Shapes of the feature maps between the parts of a detector.

Backbone and necks are run once on PyTorch's meta device, which takes a fraction of a
second whatever their size. Only where that fails, as operations without a meta kernel
do, they are run for real.
"""

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import numpy as np
import torch
from mmengine.model import Sequential
from torch import Tensor, nn
from torch.func import functional_call

from stmixer_mm.errors import blame


class PartShapes(NamedTuple):
    """A backbone or a neck, and the shapes that flow through it."""

    key: str  # where a config sets it, such as 'model.neck[0]'
    part: nn.Module
    inputs: object  # a tensor or several, mostly on the meta device
    outputs: object


class Shapes(NamedTuple):
    parts: list[PartShapes]  # in the order in which they run
    feats: object  # what the detector makes of the last part's


def trace_shapes(model: nn.Module, inputs: Tensor) -> Shapes:
    """Run backbone and necks for their shapes; nothing of the model changes.

    Args:
        model: A detector of this package or of the hosts.
        inputs: Its preprocessed inputs; only their shape and device matter.
    """
    with without_side_effects():
        # A failure proves nothing: an operation may need values.
        with suppress(Exception):
            tensors = [*model.named_parameters(), *model.named_buffers()]
            twins = {name: tensor.to('meta') for name, tensor in tensors}
            return _trace(model, twins, inputs.to('meta'))
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        if inputs.is_meta:
            inputs = torch.zeros_like(inputs, device='cpu')
        return _trace(model, buffers, inputs)


@contextmanager
def without_side_effects() -> Iterator[None]:
    """No gradients, no warnings, and the random numbers as they were."""
    states = random.getstate(), np.random.get_state()
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.no_grad(), torch.random.fork_rng(cuda), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def is_for_images(part: nn.Module) -> bool:
    """True for a part that convolves images, and no clips."""

    def has(kind: type) -> bool:
        return any(isinstance(module, kind) for module in part.modules())

    return has(nn.Conv2d) and not has(nn.Conv3d)


def describe(feats: object) -> str:
    """The shapes of one tensor or of several, (clips, channels, frames, h, w)."""
    if isinstance(feats, Tensor):
        return 'x'.join(map(str, feats.shape))
    if isinstance(feats, list | tuple):
        return f'[{", ".join(map(describe, feats))}]'
    return f'a {type(feats).__name__}'


def _trace(model: nn.Module, tensors: dict[str, Tensor], inputs: Tensor) -> Shapes:
    """Run a model in evaluation mode with other parameters and buffers."""
    traced: list[PartShapes] = []

    def trace(key: str, part: nn.Module, wrapper: str = 'FramewiseNeck') -> None:
        forward = part.forward

        def run(inputs: object) -> object:
            with blame(
                f'{key}, a {type(part).__name__}, fails on {describe(inputs)}',
                'change its settings or those before it'
                + f', or run it on each frame in a {wrapper}' * is_for_images(part),
            ):
                outputs = forward(inputs)
            traced.append(PartShapes(key, part, inputs, outputs))
            return outputs

        part.forward = run

    neck = getattr(model, 'neck', None)
    with _restored(model):
        model.eval()  # in training some of the host's backbones return nothing
        trace('model.backbone', model.backbone, 'FramewiseBackbone')
        if type(neck) is Sequential:  # built of a list
            for index, part in enumerate(neck):
                trace(f'model.neck[{index}]', part)
        elif neck is not None:
            trace('model.neck', neck)
        model.forward = model.extract_feat
        feats = functional_call(model, tensors, (inputs,))
    return Shapes(traced, feats)


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Restore the attributes of all modules, such as modes and caches, at the end."""
    saved = [(module, dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes in saved:
            vars(module).clear()
            vars(module).update(attributes)
