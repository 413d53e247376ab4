"""Checkpoints: reading them, and whether one fits a model."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_from_local
from torch import Tensor, nn

from stmixer_mm.errors import UserError
from stmixer_mm.files import check_file

LISTED_NAMES = 10


def check_checkpoint_file(path: str | Path) -> None:
    """Find out, without loading it, whether a checkpoint is there.

    URLs of a scheme that mmengine knows are left to it.
    """
    if CheckpointLoader._get_checkpoint_loader(str(path)) is load_from_local:
        check_file(
            Path(path).expanduser(),
            subject=f'Checkpoint {path}',
            remedy='give the path of a .pth file, or a URL with https://',
        )


def load_checkpoint_file(path: str | Path) -> dict:
    """Load a checkpoint (a file or a URL that mmengine knows) into RAM.

    Returns:
        With ``state_dict``, also where the file has nothing else.

    Raises:
        UserError: naming the file and the remedy.
    """
    check_checkpoint_file(path)
    checkpoint = CheckpointLoader.load_checkpoint(str(path), 'cpu', logger='silent')
    state_dict = state_dict_of(checkpoint, source=path)
    rest = checkpoint if 'state_dict' in checkpoint else {}
    return {**rest, 'state_dict': state_dict}


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
    if not isinstance(state, Mapping) or not any(map(has_values, state.values())):
        raise UserError(
            f'Checkpoint {source} has no parameters (neither a state dict nor a '
            'dictionary with "state_dict"); give a checkpoint of a model.'
        )
    return {str(name).removeprefix('module.'): value for name, value in state.items()}


def has_values(value: object) -> bool:
    """Whether it is a tensor as parameters are: dense, neither quantised nor meta."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and not value.is_meta
        and not value.is_quantized
    )


def check_state(
    model: nn.Module,
    state_dict: Mapping[str, object],
    *,
    source: str | Path,
    allow: Sequence[str] = (),
) -> None:
    """Refuse a checkpoint whose parameters are not finite, or not those of the model.

    ``num_batches_tracked`` may be missing: BN layers saved by old releases lack it.
    Values that are not tensors may be left over.

    Args:
        model: Wrapped (data parallel, test-time augmentation) or not.
        state_dict: As :func:`state_dict_of` returns it.
        source: Where it is from, for the message.
        allow: Regular expressions; parameters whose name contains a match may differ.

    Raises:
        UserError: one sentence with ``source`` and the counts, then the names.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    own, faults = model.state_dict(), {}
    for name in {**own, **state_dict}:
        fault = _compare(name, own.get(name), state_dict.get(name))
        if fault and not any(re.search(pattern, name) for pattern in allow):
            faults.setdefault(fault, []).append(name)
    if faults:
        lists = (
            f'\n  {len(names)} {fault}: {", ".join(names[:LISTED_NAMES])}'
            for fault, names in faults.items()
        )
        raise UserError(
            f'Checkpoint {source} does not fit the model {type(model).__name__}; use '
            'the config that it was trained with, or name what may differ in the '
            f'setting default_hooks.check_checkpoint.allow.{"".join(lists)}'
        )


def _compare(name: str, own: Tensor | None, saved: object) -> str | None:
    """What is wrong with a parameter of a checkpoint."""
    if own is None:
        return 'left over' if isinstance(saved, Tensor) else None
    if saved is None:
        return None if name.endswith('num_batches_tracked') else 'missing'
    if not has_values(saved):
        return 'without values'
    if saved.shape != own.shape:
        return f'of shape {_size(saved)} instead of {_size(own)}'
    is_float = saved.is_floating_point()
    if own.is_floating_point() and not (is_float and saved.float().isfinite().all()):
        return 'not finite floating-point numbers'
    return None


def _size(value: Tensor) -> str:
    return 'x'.join(map(str, value.shape)) or 'scalar'
