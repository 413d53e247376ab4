"""Shapes of the feature maps between the parts of a detector.

Backbone and necks are run once on PyTorch's meta device, which takes a fraction of a
second whatever their size. Only where that fails, as operations without a meta kernel
do, they are run for real.
"""

import copy
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import numpy as np
import torch
from mmengine.model import Sequential
from mmengine.utils import apply_to
from torch import Tensor, nn

from stmixer_mm.errors import UserError


class PartShapes(NamedTuple):
    """A backbone or a neck, and the shapes that flow through it."""

    key: str  # where a config sets it, such as 'model.neck[0]'
    part: nn.Module
    given: object  # a meta tensor or several
    returned: object = None


class Shapes(NamedTuple):
    parts: list[PartShapes]  # in the order in which they run
    feats: object  # meta tensors, what the detector makes of the last part's


def trace_shapes(model: nn.Module, inputs: Tensor) -> Shapes:
    """Run backbone and necks for their shapes; nothing of the model changes.

    Args:
        model: A detector of this package or of the hosts.
        inputs: Its preprocessed inputs; only their shape and device matter.

    Raises:
        UserError: A part fails on what it is given, on real tensors too.
    """
    with unnoticed():
        # A failure proves nothing: an operation may need values, a part may not be
        # copied.
        with suppress(Exception):
            return _trace(_meta_twin(model), inputs.to('meta'))
        with _evaluating(model):
            return _trace(model, inputs)


@contextmanager
def unnoticed() -> Iterator[None]:
    """No gradients, no warnings, and the random numbers as they were."""
    states = random.getstate(), np.random.get_state()
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=cuda),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter('ignore')
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def list_parts(model: nn.Module) -> dict[str, nn.Module]:
    """Backbone and necks by the keys of a config, in the order in which they run."""
    parts = {'model.backbone': model.backbone}
    neck = getattr(model, 'neck', None)
    if type(neck) is Sequential:  # built of a list
        parts |= {f'model.neck[{index}]': one for index, one in enumerate(neck)}
    elif neck is not None:
        parts['model.neck'] = neck
    return parts


def _trace(model: nn.Module, inputs: Tensor) -> Shapes:
    traced: list[PartShapes] = []
    hooks = []
    for key, part in list_parts(model).items():

        def enter(part: nn.Module, args: tuple, key: str = key) -> None:
            traced.append(PartShapes(key, part, _on_meta(args[0])))

        def leave(part: nn.Module, args: tuple, returned: object) -> None:
            traced[-1] = traced[-1]._replace(returned=_on_meta(returned))

        hooks.append(part.register_forward_pre_hook(enter))
        hooks.append(part.register_forward_hook(leave))
    try:
        return Shapes(traced, _on_meta(model.extract_feat(inputs)))
    except (UserError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        if not traced:
            raise
        raise UserError(_refusal(traced[-1], error)) from error
    finally:
        for hook in hooks:
            hook.remove()


def _refusal(shapes: PartShapes, error: Exception) -> str:
    key, part, given, _ = shapes
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')
    wrapper = 'FramewiseBackbone' if key == 'model.backbone' else 'FramewiseNeck'
    return (
        f'{key}, a {type(part).__name__}, fails on {describe(given)} ({reason}); change '
        f'its settings or those before it, or, if it is made for images, run it on each '
        f'frame in a {wrapper}.'
    )


def describe(feats: object) -> str:
    """The shapes of one tensor or of several, (clips, channels, frames, h, w)."""
    if isinstance(feats, Tensor):
        return 'x'.join(map(str, feats.shape))
    if isinstance(feats, list | tuple):
        return f'[{", ".join(map(describe, feats))}]'
    return f'a {type(feats).__name__}'


def _on_meta(feats: object) -> object:
    return apply_to(
        feats,
        lambda one: isinstance(one, Tensor),
        lambda one: torch.empty_like(one, device='meta'),
    )


def _meta_twin(model: nn.Module) -> nn.Module:
    """A copy for evaluation whose parameters and buffers take no memory."""
    memo = {}  # what is in it is not copied
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(_on_meta(parameter), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = _on_meta(buffer)
    twin = copy.deepcopy(model, memo)
    twin.eval()  # returns nothing in some of the host's backbones
    return twin


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; later its modes and buffers as they were."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for buffer, value in buffers:
            buffer.copy_(value)
