"""Detectors outside PyTorch: written to files for other runtimes, and run there."""

# ruff: noqa: F401
from stmixer_mm.projects.export.detector import ExportedDetector
