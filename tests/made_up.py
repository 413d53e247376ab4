"""Weights and inputs that are pure functions of their names and shapes."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

REFERENCE = Path(__file__).parent / 'data' / 'reference'


def random_state(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(name.encode()))


def made_up_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """The made-up value of the parameter or buffer with this released name."""
    if name.endswith('num_batches_tracked'):
        return torch.zeros(shape, dtype=torch.int64)
    return torch.from_numpy(
        np.asarray(_made_up_values(name, shape, random_state(name)), dtype=np.float32)
    )


def _made_up_values(name, shape, random):
    if name.endswith('empty_weight'):
        return [1, 0.1]
    if name.endswith('running_var'):
        return random.uniform(0.5, 1.5, shape)
    if name.endswith('iof_tau'):
        return random.uniform(0, 4, shape)
    if len(shape) == 1 and name.endswith('weight'):
        is_batch_norm = 'bn' in name.split('.')[-2]
        return random.uniform(*((0.2, 0.6) if is_batch_norm else (0.5, 1.5)), shape)
    if len(shape) == 1 and 'offset_generator' in name:
        return random.uniform(-0.5, 0.5, shape)
    if len(shape) == 1:
        return 0.1 * random.standard_normal(shape)
    std = np.sqrt(2 / np.prod(shape[1:]))
    if 'fc_reg' in name or 'offset_generator' in name:
        std *= 0.1
    if 'nonlocal' in name:
        std *= 0.3
    return std * random.standard_normal(shape)


def made_up_checkpoint(case: str) -> dict[str, Tensor]:
    """A released state dict of a reference case."""
    shapes = json.loads((REFERENCE / f'{case}.json').read_text())
    return {name: made_up_weight(name, tuple(shapes[name])) for name in shapes}


def made_up_input(key: str, shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
    values = scale * random_state(key).standard_normal(shape)
    return torch.from_numpy(values.astype(np.float32))


def reference(case: str) -> dict[str, np.ndarray]:
    with np.load(REFERENCE / f'{case}.npz') as arrays:
        return dict(arrays)
