from .initial_boxes import InitialBoxes, WholeFrameBoxes
from .levels import derive_strides
from .mixing import AdaptiveMixing
from .query_decoder import ExtraQueries, QueryDecoder
from .sampling import Sampler, level_weights, make_sample_points, make_sampler
from .stage import Queries, QueryStage, StageOutput, STMixerStage
from .stmixer_decoder import STMixerDecoder

__all__ = [
    'AdaptiveMixing',
    'ExtraQueries',
    'InitialBoxes',
    'Queries',
    'QueryDecoder',
    'QueryStage',
    'STMixerDecoder',
    'STMixerStage',
    'Sampler',
    'StageOutput',
    'WholeFrameBoxes',
    'derive_strides',
    'level_weights',
    'make_sample_points',
    'make_sampler',
]
