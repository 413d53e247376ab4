"""A decoder of deformable attention (Deformable DETR)."""

# ruff: noqa: F401
from stmixer_mm.projects.deformable.deformable_decoder import DeformableDecoder
