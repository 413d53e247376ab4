"""Hooks and wrappers of optimisers: importing them registers them."""

# ruff: noqa: F401
from stmixer_mm.engine.hooks import (
    CheckCheckpointHook,
    CheckModelHook,
    LeanConvolutionsHook,
    SafeCheckpointHook,
)
from stmixer_mm.engine.log_processor import StageLogProcessor
from stmixer_mm.engine.optim import BFloat16OptimWrapper
from stmixer_mm.engine.resuming import ExactResumeHook
from stmixer_mm.engine.visualization_hook import KeyframeVisualizationHook
