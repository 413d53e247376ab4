"""Boxes drawn on frames."""

# ruff: noqa: F401
from stmixer_mm.visualization.visualizer import STADVisualizer
