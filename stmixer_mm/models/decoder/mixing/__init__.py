"""Adaptive mixing: a query mixes its samples with weights that it generates."""

from stmixer_mm.models.decoder.mixing.adaptive_mixing import (
    MIXING_BACKENDS,
    AdaptiveMixing,
)

__all__ = [
    'MIXING_BACKENDS',
    'AdaptiveMixing',
]
