from .mixing import AdaptiveMixing
from .sampling import Sampler, level_weights, make_sample_points, make_sampler
from .stage import Queries, StageOutput, STMixerStage
from .stmixer_decoder import STMixerDecoder

__all__ = [
    'AdaptiveMixing',
    'Queries',
    'STMixerDecoder',
    'STMixerStage',
    'Sampler',
    'StageOutput',
    'level_weights',
    'make_sample_points',
    'make_sampler',
]
