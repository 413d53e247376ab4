"""Detections in files: dumps and csv."""
