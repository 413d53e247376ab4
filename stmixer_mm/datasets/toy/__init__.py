"""A dataset of drawn people whose actions show only in movement."""

from stmixer_mm.datasets.toy.generate import make_toy_dataset
from stmixer_mm.datasets.toy.script import ACTIONS

__all__ = ['ACTIONS', 'make_toy_dataset']
