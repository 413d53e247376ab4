"""The sampling back ends by name."""

import os
from collections.abc import Sequence
from functools import cache

import torch
from mmengine.logging import print_log
from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.models.decoder.sampling.deformable_attention import (
    DeformableAttentionSampler,
)
from stmixer_mm.models.decoder.sampling.embedding_bag import EmbeddingBagSampler
from stmixer_mm.models.decoder.sampling.grid_sample import (
    GridMeansSampler,
    GridSampler,
)
from stmixer_mm.models.decoder.sampling.sampler import Sampler
from stmixer_mm.models.decoder.sampling.triton_kernel import TritonSampler

SAMPLING_BACKENDS: dict[str, type[Sampler]] = {
    'grid_sample': GridSampler,
    'grid_means': GridMeansSampler,
    'mmcv': DeformableAttentionSampler,
    'embedding_bag': EmbeddingBagSampler,
    'triton': TritonSampler,
}
ENVIRONMENT_VARIABLE = 'STMIXER_SAMPLING_BACKEND'
# By type of device, the fastest first; elsewhere the portable one.
FASTEST = {'cpu': ('embedding_bag',), 'cuda': ('triton', 'mmcv')}


def make_sampler(
    feats: Sequence[Tensor],
    *,
    strides: Sequence[int],
    num_groups: int,
    backend: str = 'auto',
) -> Sampler:
    """Lay a feature pyramid out for sampling.

    Args:
        feats: See :class:`.sampler.Sampler`, as for the next two.
        backend: See :func:`choose_backend`.

    Raises:
        UserError: The back end is unknown, or does not run on the levels' device.
    """
    sampler = SAMPLING_BACKENDS[choose_backend(backend, feats[0].device)]
    return sampler(feats, strides=strides, num_groups=num_groups)


def choose_backend(name: str, device: torch.device) -> str:
    """A key of :data:`SAMPLING_BACKENDS`; the choice is logged once.

    Args:
        name: One of them, or 'auto': the value of the environment variable
            ``STMIXER_SAMPLING_BACKEND``, else the fastest one on the device.
        device: Of the feature maps.

    Raises:
        UserError: The back end is unknown.
    """
    source = 'sampling_backend'
    if name == 'auto' and ENVIRONMENT_VARIABLE in os.environ:
        name, source = os.environ[ENVIRONMENT_VARIABLE], ENVIRONMENT_VARIABLE
    if name == 'auto':
        source = 'the device'
        candidates = (*FASTEST.get(device.type, ()), 'grid_means')
        name = next(
            candidate
            for candidate in candidates
            if SAMPLING_BACKENDS[candidate].is_available(device)
        )
    if name not in SAMPLING_BACKENDS:
        known = ('auto', *SAMPLING_BACKENDS)
        raise UserError(f"{source}='{name}' is unknown; use one of {known}.")
    if not torch.compiler.is_compiling():
        _log_once(name, device.type, source)
    return name


@cache
def _log_once(name: str, device_type: str, source: str) -> None:
    print_log(
        f"Sampling back end on '{device_type}': {name}, chosen by {source}.",
        logger='current',
    )
