"""Backbones of other libraries, and levels from inside them."""

# ruff: noqa: F401
from stmixer_mm.projects.backbones.taps import TappedBackbone
from stmixer_mm.projects.backbones.timm import TimmBackbone
