"""What touches ground truth or scores: matching, losses, predictions."""

from stmixer_mm.models.heads.denoising import DenoisingQueries
from stmixer_mm.models.heads.stmixer_head import STMixerHead

__all__ = [
    'DenoisingQueries',
    'STMixerHead',
]
