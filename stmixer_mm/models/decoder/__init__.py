from .mixing import AdaptiveMixing
from .sampling import FeaturePyramid, level_weights, make_sample_points, sample_means
from .stage import Queries, StageOutput, STMixerStage
from .stmixer_decoder import STMixerDecoder

__all__ = [
    'AdaptiveMixing',
    'FeaturePyramid',
    'Queries',
    'STMixerDecoder',
    'STMixerStage',
    'StageOutput',
    'level_weights',
    'make_sample_points',
    'sample_means',
]
