"""Boxes drawn on frames."""

from stmixer_mm.visualization.visualizer import STADVisualizer

__all__ = ['STADVisualizer']
