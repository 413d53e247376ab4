from stmixer_mm.engine.hooks import (
    CheckCheckpointHook,
    CheckModelHook,
    SafeCheckpointHook,
)
from stmixer_mm.engine.optim import BFloat16OptimWrapper
from stmixer_mm.engine.visualization_hook import KeyframeVisualizationHook

__all__ = [
    'BFloat16OptimWrapper',
    'CheckCheckpointHook',
    'CheckModelHook',
    'KeyframeVisualizationHook',
    'SafeCheckpointHook',
]
