"""Tubelets: a box in each frame of a clip, after the abstract of STMixer-T."""

# ruff: noqa: F401
from stmixer_mm.projects.tubelets.clip_dataset import (
    TrackClipDataset,
    TubeClipDataset,
)
from stmixer_mm.projects.tubelets.reading import read_tubelets
from stmixer_mm.projects.tubelets.transforms import LocateTubelets, PackTubelets
from stmixer_mm.projects.tubelets.tubelet_decoder import STMixerTubeletDecoder
from stmixer_mm.projects.tubelets.tubelet_head import STMixerTubeletHead, TubeletCost
