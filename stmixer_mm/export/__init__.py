"""Detectors out of PyTorch: written to files of other runtimes, and run there."""

# ruff: noqa: F401
from stmixer_mm.export.detector import ExportedDetector
