# Neck: a backbone that strides time, its maps brought to one number of frames.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

model = dict(
    backbone=dict(temporal_strides=(1, 2, 1)),
    neck=[
        dict(type='ResampleTime', num_frames=4),
        dict(type='FPN3D', in_channels=[16, 64], out_channels=64),
    ],
)
