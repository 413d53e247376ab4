"""The sampling back ends by name, and which of them to take."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .deformable_attention import DeformableAttentionSampler
from .embedding_bag import EmbeddingBagSampler
from .grid_sample import GridSampler
from .sampler import Sampler

SAMPLING_BACKENDS: dict[str, type[Sampler]] = {
    'grid_sample': GridSampler,
    'mmcv': DeformableAttentionSampler,
    'embedding_bag': EmbeddingBagSampler,
}


def choose_backend(name: str, device: torch.device) -> str:
    if name == 'auto':
        name = 'mmcv' if device.type == 'cuda' else 'embedding_bag'
    if name not in SAMPLING_BACKENDS:
        raise ValueError(
            f"sampling back end '{name}' is unknown; use 'auto' or one of "
            f'{sorted(SAMPLING_BACKENDS)}.'
        )
    return name


def make_sampler(
    feats: Sequence[Tensor],
    *,
    strides: Sequence[int],
    num_groups: int,
    backend: str = 'auto',
) -> Sampler:
    """Lay a feature pyramid out for sampling."""
    sampler = SAMPLING_BACKENDS[choose_backend(backend, feats[0].device)]
    return sampler(feats, strides=strides, num_groups=num_groups)
