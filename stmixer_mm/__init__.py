"""STMixer, the one-stage sparse action detector, as a plugin for MMAction2."""

# ruff: noqa: F401
import sys
from functools import partial

from stmixer_mm.errors import end_quietly

try:
    from stmixer_mm import compat  # isort: skip  (must act before any host package is imported)
    from stmixer_mm import apis, datasets, engine, evaluation, models, visualization
except KeyboardInterrupt:
    # It takes seconds, in which nothing of a program's own can stand guard.
    sys.excepthook = partial(end_quietly, sys.excepthook)
    raise

__version__ = '0.1.0'
