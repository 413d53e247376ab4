"""Tubelets: a box in each frame of a clip, after the abstract of STMixer-T."""

# ruff: noqa: F401
from stmixer_mm.projects.tubelets.tubelet_decoder import STMixerTubeletDecoder
from stmixer_mm.projects.tubelets.tubelet_head import STMixerTubeletHead, TubeletCost
