"""Released checkpoint files to this package's."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from stmixer_mm.datasets.annotations import ava_csv
from stmixer_mm.engine.checkpoints import (
    is_dense,
    load_checkpoint_file,
    state_dict_of,
)
from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import check_file, check_sums, write_atomically
from stmixer_mm.models.release import convert_state_dict

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


def write_weights(sources: Sequence[str | Path], dst: str | Path) -> None:
    """Write the weights of checkpoints of this package, averaged, in half precision.

    Args:
        sources: Checkpoints of one training with the names of its actions, as mmengine
            writes them.
        dst: File of safetensors to write.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    checkpoints = [load_checkpoint_file(source) for source in sources]
    states = [checkpoint['state_dict'] for checkpoint in checkpoints]
    with blame(
        f'{sources[-1]} does not name its actions', 'give a checkpoint of a training'
    ):
        classes = checkpoints[-1]['meta']['dataset_meta']['classes']
    with blame(f'{sources} cannot be averaged', 'give checkpoints of one training'):
        weights = {
            name: torch.stack([state[name].float() for state in states])
            .mean(dim=0)
            .half()
            for name, value in states[-1].items()
            if value.is_floating_point()  # the others are counters
        }
        metadata = dict(format='pt', classes=json.dumps(classes))
        content = safetensors.torch.save(weights, metadata)
    write_atomically(dst, content)


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
