"""Checkpoint files of the release to this package's."""

import io
from pathlib import Path

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from stmixer_mm.datasets.annotations import ava_csv
from stmixer_mm.engine.checkpoints import is_dense, state_dict_of
from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import check_file, check_sums, write_atomically
from stmixer_mm.projects.release.names import convert_state_dict

AVA_ACTIONS = Path(ava_csv.__file__).with_name('ava_actions.pbtxt')


class _Inert:
    """Stands for an object of a class that a checkpoint names and nobody needs."""

    def __init__(self, *args, **kwargs) -> None:
        pass

    def __setstate__(self, state) -> None:
        pass


def load_released(src: str | Path) -> dict[str, torch.Tensor]:
    """The parameters in a checkpoint of the release; none of its code is run.

    Checkpoints written in training hold Python objects, too. They are not built.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    check_file(src)
    with blame(f'Checkpoint {src} cannot be read', 'fetch it again'):
        check_sums(src)
        unknown = get_unsafe_globals_in_checkpoint(src)
        with safe_globals([(_Inert, name) for name in unknown]):
            checkpoint = torch.load(src, map_location='cpu', weights_only=True)
    released = state_dict_of(checkpoint, source=src)
    return {name: value for name, value in released.items() if is_dense(value)}


def convert_checkpoint(src: str | Path, dst: str | Path) -> dict[str, dict]:
    """Convert a released STMixer checkpoint; ``dst`` is left alone on failure.

    One of 80 actions gets the names of AVA's.

    Args:
        src: A state dict, plain or under 'model' or 'state_dict'.
        dst: File to write.

    Returns:
        Configs of the backbone, neck and decoder that the weights fit.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    released = load_released(src)
    try:
        state_dict, parts = convert_state_dict(released)
    except UserError as error:
        raise UserError(f'{src}: {error}') from error
    names = ava_csv.read_label_names(str(AVA_ACTIONS))
    meta = dict(converted_parts=parts)
    if parts['decoder']['num_classes'] == len(names) + 1:
        meta['dataset_meta'] = dict(classes=tuple(names.values()))
    content = io.BytesIO()  # on a full disk torch hides the reason
    torch.save(dict(state_dict=state_dict, meta=meta), content)
    write_atomically(dst, content.getbuffer())
    return parts
