"""Datasets and transforms: importing them registers them."""

# ruff: noqa: F401
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
