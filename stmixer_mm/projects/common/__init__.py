"""Helpers that several projects need and the core does not."""
