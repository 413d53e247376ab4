"""Adaptive mixing: a query mixes its samples with weights that it generates."""
