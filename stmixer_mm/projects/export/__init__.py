"""Detectors in files for other runtimes, which take the place of checkpoints."""

# ruff: noqa: F401
from stmixer_mm.projects.export.detector import ExportedDetector, put_in_place
from stmixer_mm.projects.export.formats import FORMATS
from stmixer_mm.registry import MODEL_FILES

MODEL_FILES.update({form.suffix: put_in_place for form in FORMATS.values()})
