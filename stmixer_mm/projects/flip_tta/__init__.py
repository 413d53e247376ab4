"""Test-time augmentation: a clip and its mirror image, merged."""

# ruff: noqa: F401
from stmixer_mm.projects.flip_tta.flip_tta import FlipTTAModel
