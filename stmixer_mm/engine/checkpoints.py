"""Checkpoints: reading them, and whether one fits a model."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_from_local
from torch import nn

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
        With ``state_dict``, also where the file holds nothing else.

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

    Not all in it need be parameters.

    Raises:
        UserError: there are none.
    """
    state = checkpoint
    if isinstance(checkpoint, Mapping):
        state = checkpoint.get('state_dict', checkpoint.get('model', checkpoint))
    if not isinstance(state, Mapping) or not any(map(has_values, state.values())):
        raise UserError(
            f'Checkpoint {source} holds no parameters (neither a state dict nor a '
            'dictionary with "state_dict"); give a checkpoint of a model.'
        )
    for name in state:
        if not isinstance(name, str):
            raise UserError(
                f'Checkpoint {source} has a parameter with the name {name!r}, which is '
                'not text; give a checkpoint of a model.'
            )
    return {name.removeprefix('module.'): value for name, value in state.items()}


def has_values(value: object) -> bool:
    """Whether it is a tensor as parameters are: dense, neither quantised nor meta."""
    return (
        isinstance(value, torch.Tensor)
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
    What is not a tensor may be left over.

    Args:
        model: Wrapped (data parallel, test-time augmentation) or not.
        state_dict: As :func:`state_dict_of` returns it.
        source: Where it is from, for the message.
        allow: Regular expressions; parameters in whose name one of them is found may
            differ.

    Raises:
        UserError: one sentence with ``source`` and the counts, then the names.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    differences = {'missing': [], 'left over': [], 'of another shape': []}
    broken = []
    own = model.state_dict()
    for name in {**own, **state_dict}:
        if any(re.search(pattern, name) for pattern in allow):
            continue
        if name not in own:
            if isinstance(state_dict[name], torch.Tensor):
                differences['left over'].append(name)
        elif name not in state_dict:
            if not name.endswith('num_batches_tracked'):
                differences['missing'].append(name)
        elif not has_values(state_dict[name]):
            broken.append(name)
        elif state_dict[name].shape != own[name].shape:
            sizes = f'(checkpoint {_size(state_dict[name])}, model {_size(own[name])})'
            differences['of another shape'].append(f'{name} {sizes}')
        elif own[name].is_floating_point() and not (
            state_dict[name].is_floating_point()
            and state_dict[name].float().isfinite().all()
        ):
            broken.append(name)
    if any(differences.values()):
        counts = ', '.join(f'{len(names)} {how}' for how, names in differences.items())
        lists = [
            f'\n  {how}: {", ".join(names[:LISTED_NAMES])}'
            for how, names in differences.items()
            if names
        ]
        raise UserError(
            f'Checkpoint {source} does not fit the model {type(model).__name__} '
            f'(parameters: {counts}; up to {LISTED_NAMES} of each follow); use the '
            'config that it was trained with, or name what may differ in the setting '
            f'default_hooks.check_checkpoint.allow.{"".join(lists)}'
        )
    if broken:
        raise UserError(
            f'Checkpoint {source} is damaged, or of a training that diverged: '
            f'{len(broken)} parameters are not finite floating-point numbers; give '
            f'another one.\n  {", ".join(broken[:LISTED_NAMES])}'
        )


def _size(value: torch.Tensor) -> str:
    return 'x'.join(map(str, value.shape)) or 'scalar'
