"""Checkpoints: reading them, and whether one fits a model."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader
from torch import nn

from stmixer_mm.errors import UserError
from stmixer_mm.files import check_file

LISTED_NAMES = 10


def check_checkpoint_file(path: str | Path) -> None:
    """Find out, without loading it, whether a checkpoint is there.

    URLs are left to the loader.
    """
    if ':' not in str(path):
        check_file(
            Path(path).expanduser(),
            subject=f'Checkpoint {path}',
            remedy='give the path of a .pth file',
        )


def load_checkpoint_file(path: str | Path) -> dict:
    """Load a checkpoint (a file or a URL that mmengine knows) into RAM.

    Returns:
        With ``state_dict``, also where the file holds nothing else.

    Raises:
        UserError: naming the file and the remedy.
    """
    check_checkpoint_file(path)
    checkpoint = CheckpointLoader.load_checkpoint(str(path), 'cpu', logger=None)
    state_dict = state_dict_of(checkpoint, source=path)
    rest = checkpoint if 'state_dict' in checkpoint else {}
    return {**rest, 'state_dict': state_dict}


def state_dict_of(checkpoint: object, *, source: str | Path) -> dict[str, torch.Tensor]:
    """The parameters of a loaded checkpoint, without the prefix of data parallel models.

    Raises:
        UserError: there are none.
    """
    state = checkpoint
    if isinstance(checkpoint, Mapping):
        state = checkpoint.get('state_dict', checkpoint.get('model', checkpoint))
    if not isinstance(state, Mapping) or not any(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise UserError(
            f'Checkpoint {source} holds no parameters (neither a state dict nor a '
            'dictionary with "state_dict"); give a checkpoint of a model.'
        )
    return {
        name.removeprefix('module.'): value
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }


def check_state(
    model: nn.Module,
    state_dict: Mapping[str, torch.Tensor],
    *,
    source: str | Path,
    allow: Sequence[str] = (),
) -> None:
    """Refuse a checkpoint whose parameters differ from the model's in name or shape.

    ``num_batches_tracked`` may be missing: BN layers saved by old releases lack it.

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
    own = model.state_dict()
    for name in {**own, **state_dict}:
        if any(re.search(pattern, name) for pattern in allow):
            continue
        if name not in own:
            differences['left over'].append(name)
        elif name not in state_dict:
            if not name.endswith('num_batches_tracked'):
                differences['missing'].append(name)
        elif state_dict[name].shape != own[name].shape:
            sizes = f'(checkpoint {_size(state_dict[name])}, model {_size(own[name])})'
            differences['of another shape'].append(f'{name} {sizes}')
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


def _size(value: torch.Tensor) -> str:
    return 'x'.join(map(str, value.shape)) or 'scalar'
