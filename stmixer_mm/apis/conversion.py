"""Released checkpoint files to this package's."""

from pathlib import Path

import torch

from stmixer_mm.engine.checkpoints import is_dense, load_checkpoint_file, state_dict_of
from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import atomic_path
from stmixer_mm.models.release import convert_state_dict


def convert_checkpoint(
    src: str | Path, dst: str | Path, *, trust: bool = False
) -> dict[str, dict]:
    """Convert a released STMixer checkpoint; ``dst`` is left alone on failure.

    Args:
        src: A state dict, plain or under 'model' or 'state_dict'.
        dst: File to write.
        trust: Load Python objects in ``src`` too, which can run code.

    Returns:
        Configs of the backbone, neck and decoder that the weights fit.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    if trust:
        with blame(f'Checkpoint {src} cannot be read', 'fetch it again'):
            checkpoint = torch.load(src, map_location='cpu', weights_only=False)
        released = state_dict_of(checkpoint, source=src)
    else:
        released = load_checkpoint_file(src)['state_dict']
    released = {name: value for name, value in released.items() if is_dense(value)}
    try:
        state_dict, parts = convert_state_dict(released)
    except UserError as error:
        raise UserError(f'{src}: {error}') from error
    with atomic_path(dst) as part:
        torch.save(dict(state_dict=state_dict, meta=dict(converted_parts=parts)), part)
    return parts
