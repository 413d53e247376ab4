"""Datasets, transforms and the reading of AVA annotation files."""

from .keyframe_dataset import KeyframeDataset
from .transforms import (
    DecodeFrames,
    FilterBoxes,
    OpenVideo,
    RandomShortSideResize,
    SampleKeyframeClip,
)

__all__ = [
    'DecodeFrames',
    'FilterBoxes',
    'KeyframeDataset',
    'OpenVideo',
    'RandomShortSideResize',
    'SampleKeyframeClip',
]
