"""Noised ground truth as further queries in training (DN-DETR)."""

# ruff: noqa: F401
from stmixer_mm.projects.denoising.denoising_queries import (
    DenoisingQueries,
    DenoisingTubelets,
)
