"""Queries carried from keyframe to keyframe (MOTR)."""

# ruff: noqa: F401
from stmixer_mm.projects.track_queries.keyframe_sequences import KeyframeSequences
from stmixer_mm.projects.track_queries.query_interaction import QueryInteraction
