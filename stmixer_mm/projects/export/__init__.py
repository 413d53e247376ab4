"""Detectors in files for other runtimes, which take the place of checkpoints."""

# ruff: noqa: F401
from stmixer_mm.projects.export.detector import ExportedDetector, put_in_place
