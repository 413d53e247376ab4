"""Readers of predictions in files."""
