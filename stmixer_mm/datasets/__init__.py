"""Whatever a config can name: to import a module registers its classes."""

# ruff: noqa: F401
import stmixer_mm.datasets.keyframe_dataset
import stmixer_mm.datasets.transforms
import stmixer_mm.datasets.tube_dataset
