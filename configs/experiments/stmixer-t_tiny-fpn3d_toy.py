# Tubelets on a feature pyramid for video.
_base_ = '../stmixer/stmixer-t_tiny_1xb8-4x3x1_toy.py'

model = dict(neck=dict(type='FPN3D', in_channels=[16, 64], out_channels=64))
