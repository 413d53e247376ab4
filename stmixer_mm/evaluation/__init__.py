"""Metrics: importing them registers them."""

# ruff: noqa: F401
from stmixer_mm.evaluation.metrics.frame_map_metric import FrameMAPMetric
from stmixer_mm.evaluation.metrics.tube_frame_map_metric import TubeFrameMAPMetric
from stmixer_mm.evaluation.metrics.video_map_metric import VideoMAPMetric
from stmixer_mm.evaluation.results.dumps import DumpPredictions
