"""STMixer, the one-stage sparse action detector, as a plugin for MMAction2."""

# ruff: noqa: F401
from stmixer_mm import compat  # isort: skip  (must act before any host package is imported)
from stmixer_mm import apis, datasets, engine, evaluation, models, visualization

__version__ = '0.2.0'
