"""The sampling back ends by name."""

from functools import cache

import torch
from mmengine.logging import print_log

from stmixer_mm.errors import UserError, choose
from stmixer_mm.models.decoder.sampling.deformable_attention import (
    DeformableAttentionSampler,
)
from stmixer_mm.models.decoder.sampling.embedding_bag import EmbeddingBagSampler
from stmixer_mm.models.decoder.sampling.grid_sample import GridMeansSampler, GridSampler
from stmixer_mm.models.decoder.sampling.sampler import Sampler
from stmixer_mm.models.decoder.sampling.triton_kernel import TritonSampler

SAMPLING_BACKENDS: dict[str, type[Sampler]] = {
    'grid_sample': GridSampler,
    'grid_means': GridMeansSampler,
    'mmcv': DeformableAttentionSampler,
    'embedding_bag': EmbeddingBagSampler,
    'triton': TritonSampler,
}
# By type of device, the fastest first; elsewhere the portable one.
FASTEST = {'cpu': ('embedding_bag',), 'cuda': ('triton', 'mmcv')}


def choose_backend(name: str, device: torch.device) -> str:
    """A key of :data:`SAMPLING_BACKENDS`; the choice is logged once.

    Args:
        name: One of them, or 'auto' for the fastest one on the device.
        device: Of the feature maps.

    Raises:
        UserError: The back end is unknown, or does not run on the device.
    """
    if name == 'auto':
        fastest = FASTEST.get(device.type, ())
        if torch.are_deterministic_algorithms_enabled():
            fastest = ('embedding_bag',)  # others add gradients in any order
        for name in (*fastest, 'grid_means'):
            if SAMPLING_BACKENDS[name].is_available(device):
                break
    if not choose('sampling_backend', name, SAMPLING_BACKENDS).is_available(device):
        raise UserError(f"sampling_backend='{name}' does not run on '{device}'.")
    if not torch.compiler.is_compiling():
        _log_once(name, device.type)
    return name


@cache
def _log_once(name: str, device_type: str) -> None:
    print_log(f"Sampling back end on '{device_type}': {name}.", logger='current')
