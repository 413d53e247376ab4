from .deformable_decoder import DeformableDecoder
from .initial_boxes import GridBoxes, InitialBoxes, LearnedBoxes, WholeFrameBoxes
from .levels import derive_strides
from .mixing import AdaptiveMixing
from .proposal_boxes import ProposalBoxes
from .query_decoder import ExtraQueries, QueryDecoder
from .sampling import Sampler, level_weights, make_sample_points, make_sampler
from .stage import Queries, QueryStage, StageOutput, STMixerStage
from .stmixer_decoder import STMixerDecoder

__all__ = [
    'AdaptiveMixing',
    'DeformableDecoder',
    'ExtraQueries',
    'GridBoxes',
    'InitialBoxes',
    'LearnedBoxes',
    'ProposalBoxes',
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
