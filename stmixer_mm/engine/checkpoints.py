"""Checkpoints: reading them, and whether one fits a model and its training."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn
from torch.optim import Optimizer

from stmixer_mm.errors import UserError, blame

LISTED_NAMES = 10


def load_checkpoint_file(path: str | Path) -> dict:
    """Load a checkpoint (a file or a URL that mmengine knows) into RAM.

    Returns:
        With ``state_dict``, also where the file has nothing else.

    Raises:
        UserError: naming the file and the remedy.
    """
    checkpoint = CheckpointLoader.load_checkpoint(str(path), 'cpu', logger='silent')
    state_dict = state_dict_of(checkpoint, source=path)
    content = checkpoint if 'state_dict' in checkpoint else {}
    return {**content, 'state_dict': state_dict}


def load_weights(model: nn.Module, path: str | Path) -> dict:
    """Load a checkpoint, as :func:`load_checkpoint_file` returns it, into a model.

    Raises:
        UserError: it cannot be read, or is not of this model.
    """
    loaded = load_checkpoint_file(path)
    check_state(model, loaded['state_dict'], source=path)
    model.load_state_dict(loaded['state_dict'], strict=False)
    return loaded


def state_dict_of(checkpoint: object, *, source: str | Path) -> dict[str, object]:
    """The state of a loaded checkpoint, without the prefix of data parallel models.

    Some of its values may be no parameters.

    Raises:
        UserError: there are none.
    """
    state = checkpoint
    if isinstance(checkpoint, Mapping):
        state = checkpoint.get('state_dict', checkpoint.get('model', checkpoint))
    if not isinstance(state, Mapping) or not any(map(is_dense, state.values())):
        raise UserError(
            f'Checkpoint {source} has no parameters (neither a state dict nor a '
            'dictionary with "state_dict"); give a checkpoint of a model.'
        )
    return {str(name).removeprefix('module.'): value for name, value in state.items()}


def check_state(
    model: nn.Module,
    state_dict: Mapping[str, object],
    *,
    source: str | Path,
    allow: Sequence[str] = (),
) -> None:
    """Refuse a checkpoint whose parameters are not finite, or not those of the model.

    ``num_batches_tracked`` may be missing: BN layers saved by old releases lack it.
    Values that are not tensors, and a part that the model has as None, may be left
    over.

    Args:
        model: Wrapped (data parallel) or not.
        state_dict: As :func:`state_dict_of` returns it.
        source: Its file, for the message.
        allow: Regular expressions; parameters whose name contains a match may differ.

    Raises:
        UserError: one sentence with ``source``, the counts and the names.
    """
    if is_model_wrapper(model):
        model = model.module
    model_state, faults = model.state_dict(), {}
    for name in {**model_state, **state_dict}:
        fault = _compare(name, model_state.get(name), state_dict.get(name))
        is_off = model._modules.get(name.partition('.')[0], model) is None
        if fault and not (is_off or any(re.search(pattern, name) for pattern in allow)):
            faults.setdefault(fault, []).append(name)
    if faults:
        lists = (
            f'{len(names)} {fault}: {", ".join(names[:LISTED_NAMES])}'
            for fault, names in faults.items()
        )
        raise UserError(
            f'Checkpoint {source} does not fit the model {type(model).__name__} '
            f'({"; ".join(lists)}); use the config that it was trained with, or name '
            'what may differ in the setting default_hooks.check_checkpoint.allow.'
        )


def _compare(name: str, parameter: Tensor | None, saved: object) -> str | None:
    """The fault of a parameter of a checkpoint, if it has one."""
    if parameter is None:
        return 'left over' if isinstance(saved, Tensor) else None
    if saved is None:
        return None if name.endswith('num_batches_tracked') else 'missing'
    shapes = tuple(getattr(saved, 'shape', ())), tuple(parameter.shape)
    if shapes[0] != shapes[1]:
        return f'of shape {shapes[0]} instead of {shapes[1]}'
    if not is_dense(saved) or parameter.is_floating_point() > saved.is_floating_point():
        return 'of another kind of numbers'
    # As the model will have them: of 8 bits, torch cannot tell, and 64 may overflow.
    return None if saved.to(parameter.dtype).isfinite().all() else 'not finite'


def is_dense(value: object) -> bool:
    """True for a dense tensor with values, as parameters are."""
    is_strided = isinstance(value, Tensor) and value.layout is torch.strided
    return is_strided and not (value.is_meta or value.is_quantized)


def check_training(runner, checkpoint: Mapping, *, source: str | Path) -> None:
    """Refuse a checkpoint from which the training of a runner cannot continue.

    Raises:
        UserError: one sentence with ``source`` and what does not fit.
    """
    remedy = (
        'resume from a checkpoint of a training with this config, or start from its '
        'weights (load_from, without --resume)'
    )
    with blame(f'Checkpoint {source} cannot be resumed', remedy):
        names = ['meta', 'message_hub', 'optimizer']
        if runner.param_schedulers:
            names.append('param_schedulers')
        for name in names:
            if not checkpoint.get(name):
                raise ValueError(f'it has no {name}')
        if isinstance(runner.optim_wrapper, OptimWrapper):
            _check_optimizer(runner.optim_wrapper.optimizer, checkpoint['optimizer'])


def _check_optimizer(optimizer: Optimizer, saved: Mapping) -> None:
    """Raise ``ValueError`` for the state of another optimizer, or other parameters."""
    groups = zip(optimizer.param_groups, saved['param_groups'], strict=True)
    for group, saved_group in groups:
        if missing := optimizer.defaults.keys() - saved_group.keys():
            raise ValueError(f'its optimizer has no {", ".join(sorted(missing))}')
        pairs = zip(group['params'], saved_group['params'], strict=True)
        for parameter, number in pairs:
            for name, value in saved['state'].get(number, {}).items():
                # A fused optimizer reads beyond a state that is too small.
                is_array = (
                    group.get('fused') and isinstance(value, Tensor) and value.dim()
                )
                if is_array and value.shape != parameter.shape:
                    raise ValueError(f'{name} of parameter {number} has another shape')
