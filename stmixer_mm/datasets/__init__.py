"""Datasets, transforms and the reading of annotation files."""

from stmixer_mm.datasets.annotations.tube_annotations import (
    TubeAnnotations,
    read_tube_annotations,
)
from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.datasets.transforms import (
    DecodeFrameFiles,
    DecodeFrames,
    FilterBoxes,
    OpenVideo,
    RandomShortSideResize,
    SampleKeyframeClip,
)
from stmixer_mm.datasets.tube_dataset import TubeDataset

__all__ = [
    'DecodeFrameFiles',
    'DecodeFrames',
    'FilterBoxes',
    'KeyframeDataset',
    'OpenVideo',
    'RandomShortSideResize',
    'SampleKeyframeClip',
    'TubeAnnotations',
    'TubeDataset',
    'read_tube_annotations',
]
