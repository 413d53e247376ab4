"""Overlapping clips of a stream share what is computed for each frame."""

from stmixer_mm.projects.streaming.causal_shift import CausalShiftBackbone  # noqa: F401
from stmixer_mm.projects.streaming.memory import start_stream
from stmixer_mm.registry import STREAMS

STREAMS.append(start_stream)
