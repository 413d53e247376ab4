"""Checks of the datasets of a config, each fault with its line."""
