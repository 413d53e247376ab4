"""Checks of the datasets and evaluators of a config, each fault with its line."""
