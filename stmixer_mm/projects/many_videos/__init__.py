"""Detection in many videos, resumable and in parallel."""
