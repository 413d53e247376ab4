"""The registered metrics."""
