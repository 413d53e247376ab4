"""Checkpoints: reading them, and whether one fits a model."""

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader
from torch import nn

from stmixer_mm.errors import UserError
from stmixer_mm.files import check_file

LISTED_NAMES = 10
_LEGACY_PICKLE = b'\x80'


class StateDifference(NamedTuple):
    """How the parameters of a checkpoint differ from those of a model."""

    missing: list[str]
    left_over: list[str]
    other_shape: list[str]  # 'name (checkpoint 80x256, model 3x256)'

    def __bool__(self) -> bool:
        return any(self)


def is_url(path: str | Path) -> bool:
    """Whether mmengine reads ``path`` from somewhere else than the local disk."""
    return re.match(r'[\w+.-]{2,}:(//)?', str(path)) is not None


def check_checkpoint_file(path: str | Path) -> None:
    """Find out without loading it whether ``path`` can be a checkpoint.

    URLs are not looked at.

    Raises:
        OSError, ValueError: naming the file and the remedy.
    """
    if is_url(path):
        return
    file = Path(path).expanduser()
    check_file(
        file, subject=f'Checkpoint {path}', remedy='give the path of a .pth file'
    )
    with open(file, 'rb') as stream:
        magic = stream.read(2)
    if not magic:
        raise UserError(f'Checkpoint {path} is empty; use an earlier one.')
    if magic == b'PK':
        if not zipfile.is_zipfile(file):
            raise UserError(
                f'Checkpoint {path} is cut off (its table of contents is missing); '
                f'copy or download it again, or use an earlier one.'
            )
    elif not magic.startswith(_LEGACY_PICKLE):
        raise UserError(
            f'{path} is not a PyTorch checkpoint; give the path of a .pth file.'
        )


def load_checkpoint_file(path: str | Path, *, map_location: str = 'cpu') -> dict:
    """Load a checkpoint (a file or a URL that mmengine knows) as a dictionary.

    Returns:
        dict: with ``state_dict``; a file that holds nothing but a state dict is
        wrapped into one.

    Raises:
        OSError, ValueError: naming the file and the remedy.
    """
    check_checkpoint_file(path)
    try:
        checkpoint = CheckpointLoader.load_checkpoint(
            str(path), map_location=map_location, logger=None
        )
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise UserError(unreadable_sentence(path, error)) from error
    state_dict = state_dict_of(checkpoint, source=path)
    rest = checkpoint if 'state_dict' in checkpoint else {}
    return {**rest, 'state_dict': state_dict}


def unreadable_sentence(source: str | Path, error: Exception) -> str:
    """One sentence for an ``error`` of ``torch.load`` on ``source``."""
    unsafe = re.search(r'(?:GLOBAL|global|class) ([\w.]+)', str(error))
    if 'weights_only' in str(error) and unsafe:
        return (
            f'Checkpoint {source} holds an object of type {unsafe[1]}, which is not '
            f'loaded because it could run code; if you trust the file, allow the type '
            f'with torch.serialization.add_safe_globals.'
        )
    reason = str(error).strip().split('\n')[0]
    return f'Checkpoint {source} cannot be read ({reason}); is it whole?'


def state_dict_of(checkpoint: object, *, source: str | Path) -> dict[str, torch.Tensor]:
    """The parameters of a loaded checkpoint, without what model wrappers add.

    Data parallel and averaged (EMA) models put ``module.`` before each name; the
    latter add a counter ``steps``.

    Raises:
        ValueError: if there are none.
    """
    state = checkpoint
    if isinstance(checkpoint, Mapping):
        state = checkpoint.get('state_dict', checkpoint.get('model', checkpoint))
    if not isinstance(state, Mapping) or not any(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise UserError(
            f'Checkpoint {source} holds no parameters (neither a state dict nor a '
            f'dictionary with "state_dict"); give a checkpoint of a model.'
        )
    prefix = 'module.'
    wrapped = any(name.startswith(prefix) for name in state)
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if not (wrapped and name == 'steps')
    }


def _unwrapped(model: nn.Module) -> nn.Module:
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def compare_state(
    model: nn.Module,
    state_dict: Mapping[str, torch.Tensor],
    *,
    allow: Sequence[str] = (),
) -> StateDifference:
    """Compare names and shapes of a checkpoint's parameters with a model's.

    Args:
        model (nn.Module): Wrapped (data parallel, test-time augmentation) or not.
        state_dict (Mapping): Parameters as :func:`state_dict_of` gives them.
        allow (Sequence[str]): Regular expressions; parameters in whose name one of
            them is found may differ.

    ``num_batches_tracked`` may be missing: BN layers saved by old releases lack it.
    """
    own = _unwrapped(model).state_dict()

    def counts(name: str) -> bool:
        return not any(re.search(pattern, name) for pattern in allow)

    def size(value: torch.Tensor) -> str:
        return 'x'.join(map(str, value.shape)) or 'scalar'

    return StateDifference(
        missing=[
            name
            for name in own
            if name not in state_dict
            and not name.endswith('num_batches_tracked')
            and counts(name)
        ],
        left_over=[name for name in state_dict if name not in own and counts(name)],
        other_shape=[
            f'{name} (checkpoint {size(state_dict[name])}, model {size(value)})'
            for name, value in own.items()
            if name in state_dict
            and getattr(state_dict[name], 'shape', None) != value.shape
            and isinstance(state_dict[name], torch.Tensor)
            and counts(name)
        ],
    )


def check_state(
    model: nn.Module,
    state_dict: Mapping[str, torch.Tensor],
    *,
    source: str | Path,
    allow: Sequence[str] = (),
) -> None:
    """Refuse a checkpoint of another architecture.

    Raises:
        ValueError: one sentence with ``source`` and the counts, then the names.
    """
    difference = compare_state(model, state_dict, allow=allow)
    if not difference:
        return
    kinds = dict(
        zip(('missing', 'left over', 'of another shape'), difference, strict=True)
    )
    counted = ', '.join(f'{len(names)} {kind}' for kind, names in kinds.items())
    lists = [
        f'\n  {kind}: {", ".join(names[:LISTED_NAMES])}'
        + (f', and {len(names) - LISTED_NAMES} more' * (len(names) > LISTED_NAMES))
        for kind, names in kinds.items()
        if names
    ]
    raise UserError(
        f'Checkpoint {source} does not fit the model '
        f'{type(_unwrapped(model)).__name__} (parameters: {counted}); use the config '
        f'that it was trained with, or name what may differ in the setting '
        f'default_hooks.check_checkpoint.allow.{"".join(lists)}'
    )
