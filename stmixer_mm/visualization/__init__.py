"""Boxes drawn on frames, and persons over time."""

# ruff: noqa: F401
from stmixer_mm.visualization.timeline import plot_timeline
from stmixer_mm.visualization.visualizer import STADVisualizer
