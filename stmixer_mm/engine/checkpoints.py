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

    Raises:
        UserError: naming the file and the remedy.
    """
    if ':' not in str(path):
        check_file(
            Path(path).expanduser(),
            subject=f'Checkpoint {path}',
            remedy='give the path of a .pth file',
        )


def load_checkpoint_file(path: str | Path, *, map_location: str = 'cpu') -> dict:
    """Load a checkpoint (a file or a URL that mmengine knows) as a dictionary.

    Returns:
        With ``state_dict``; a file that holds nothing but a state dict is wrapped
        into one.

    Raises:
        UserError: naming the file and the remedy.
    """
    check_checkpoint_file(path)
    checkpoint = CheckpointLoader.load_checkpoint(str(path), map_location, logger=None)
    state_dict = state_dict_of(checkpoint, source=path)
    rest = checkpoint if 'state_dict' in checkpoint else {}
    return {**rest, 'state_dict': state_dict}


def state_dict_of(checkpoint: object, *, source: str | Path) -> dict[str, torch.Tensor]:
    """The parameters of a loaded checkpoint, without what model wrappers add.

    Data parallel and averaged (EMA) models put ``module.`` before each name; the
    latter add a counter ``steps``.

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
    prefix = 'module.'
    wrapped = any(name.startswith(prefix) for name in state)
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if not (wrapped and name == 'steps')
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
    own = model.state_dict()

    names = [
        name
        for name in {**own, **state_dict}
        if not any(re.search(pattern, name) for pattern in allow)
    ]

    def size(value: torch.Tensor) -> str:
        return 'x'.join(map(str, value.shape)) or 'scalar'

    differences = {
        'missing': [
            name
            for name in names
            if name not in state_dict and not name.endswith('num_batches_tracked')
        ],
        'left over': [name for name in names if name not in own],
        'of another shape': [
            f'{name} (checkpoint {size(state_dict[name])}, model {size(own[name])})'
            for name in names
            if name in own
            and isinstance(state_dict.get(name), torch.Tensor)
            and state_dict[name].shape != own[name].shape
        ],
    }
    if not any(differences.values()):
        return
    counts = ', '.join(f'{len(names)} {how}' for how, names in differences.items())
    lists = [
        f'\n  {how}: {", ".join(names[:LISTED_NAMES])}'
        + (f', and {len(names) - LISTED_NAMES} more' * (len(names) > LISTED_NAMES))
        for how, names in differences.items()
        if names
    ]
    raise UserError(
        f'Checkpoint {source} does not fit the model {type(model).__name__} '
        f'(parameters: {counts}); use the config that it was trained with, or name '
        'what may differ in the setting default_hooks.check_checkpoint.allow.'
        f'{"".join(lists)}'
    )
