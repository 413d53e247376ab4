"""Memory: actions that minutes show, not the clip."""

# ruff: noqa: F401
from stmixer_mm.projects.memory.long_term_actions import LongTermActions
from stmixer_mm.projects.memory.training import (
    BankActions,
    BankDataset,
    BankPreprocessor,
)
