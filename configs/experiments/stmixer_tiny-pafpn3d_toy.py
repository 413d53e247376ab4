# Neck: a path-aggregating pyramid for video.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

model = dict(neck=dict(type='PAFPN3D'))
