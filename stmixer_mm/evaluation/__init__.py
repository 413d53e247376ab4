"""Metrics."""

from stmixer_mm.datasets.tube_annotations import (
    TubeAnnotations,
    read_tube_annotations,
)

from .dumps import DumpPredictions
from .frame_map_metric import FrameMAPMetric
from .tube_metrics import TubeFrameMAPMetric, VideoMAPMetric

__all__ = [
    'DumpPredictions',
    'FrameMAPMetric',
    'TubeAnnotations',
    'TubeFrameMAPMetric',
    'VideoMAPMetric',
    'read_tube_annotations',
]
