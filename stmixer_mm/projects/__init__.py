"""Neighbours of the core, each behind the registry or a protocol of the core."""
