"""Datasets, transforms and the reading of annotation files."""

from .keyframe_dataset import KeyframeDataset
from .transforms import (
    DecodeFrameFiles,
    DecodeFrames,
    FilterBoxes,
    OpenVideo,
    RandomShortSideResize,
    SampleKeyframeClip,
)
from .tube_annotations import TubeAnnotations, read_tube_annotations
from .tube_dataset import TubeDataset

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
