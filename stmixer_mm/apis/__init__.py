"""Detection in videos, runners and checkpoint conversion."""
