from stmixer_mm.models.decoder.deformable_decoder import DeformableDecoder
from stmixer_mm.models.decoder.query_decoder import ExtraQueries, QueryDecoder
from stmixer_mm.models.decoder.stage import (
    Queries,
    QueryStage,
    StageOutput,
    STMixerStage,
)
from stmixer_mm.models.decoder.stmixer_decoder import STMixerDecoder

__all__ = [
    'DeformableDecoder',
    'ExtraQueries',
    'Queries',
    'QueryDecoder',
    'QueryStage',
    'STMixerDecoder',
    'STMixerStage',
    'StageOutput',
]
