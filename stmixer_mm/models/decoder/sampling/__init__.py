"""4D sampling: where the queries look, and what they see there."""

from stmixer_mm.models.decoder.sampling.backends import (
    SAMPLING_BACKENDS,
    choose_backend,
    make_sampler,
)
from stmixer_mm.models.decoder.sampling.points import level_weights, make_sample_points
from stmixer_mm.models.decoder.sampling.sampler import Sampler

__all__ = [
    'SAMPLING_BACKENDS',
    'Sampler',
    'choose_backend',
    'level_weights',
    'make_sample_points',
    'make_sampler',
]
