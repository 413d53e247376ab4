"""STMixer as a detector of mmdet for still images."""

# ruff: noqa: F401
from stmixer_mm.projects.still_images.still_image import StillImageSTMixer
