"""Necks that fuse levels and frames: pyramids of 3-D convolutions."""

from stmixer_mm.projects.pyramids.fpn3d import FPN3D, PAFPN3D
from stmixer_mm.projects.pyramids.resample_time import ResampleTime

__all__ = ['FPN3D', 'PAFPN3D', 'ResampleTime']
