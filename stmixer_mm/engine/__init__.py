"""Hooks, optimiser wrappers and checkpoints."""

from stmixer_mm.engine import hooks, optim, visualization_hook

__all__ = ['hooks', 'optim', 'visualization_hook']
