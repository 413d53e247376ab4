"""Checkpoints of this package to weights that ship."""

import json
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch

from stmixer_mm.engine.checkpoints import load_checkpoint_file
from stmixer_mm.errors import blame
from stmixer_mm.files import write_atomically


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
