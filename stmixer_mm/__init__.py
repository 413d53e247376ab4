"""STMixer, the one-stage sparse action detector, as a plugin for MMAction2."""

# ruff: noqa: E402, F401
import sys

from stmixer_mm.errors import end_quietly

# What follows takes seconds, in which nothing of a program's own can stand guard.
_hook, sys.excepthook = sys.excepthook, end_quietly
from stmixer_mm import compat  # isort: skip  (must act before any host package is imported)
from stmixer_mm import apis, datasets, engine, evaluation, models, visualization

sys.excepthook = _hook

__version__ = '0.1.0'
