"""Hooks, optimisers and their wrappers: importing them registers them."""

# ruff: noqa: F401
from stmixer_mm.engine.hooks import (
    CheckCheckpointHook,
    CheckModelHook,
    LeanConvolutionsHook,
    SafeCheckpointHook,
)
from stmixer_mm.engine.optim import BFloat16OptimWrapper, FusedAdamW
from stmixer_mm.engine.resuming import ExactResumeHook
from stmixer_mm.engine.visualization_hook import KeyframeVisualizationHook
