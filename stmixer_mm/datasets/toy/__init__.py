"""A made-up dataset of drawn people whose actions show only in movement."""

from .generate import make_toy_dataset
from .script import ACTIONS

__all__ = ['ACTIONS', 'make_toy_dataset']
