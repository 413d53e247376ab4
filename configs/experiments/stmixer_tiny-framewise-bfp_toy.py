# Neck: projection, then mmdet's BFP frame by frame.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

bfp = dict(type='mmdet.BFP', in_channels=64, num_levels=2, refine_level=1)
model = dict(
    neck=[
        dict(type='ChannelProjection3D', in_channels=[16, 64], out_channels=64),
        dict(type='FramewiseNeck', neck=dict(refine_type='non_local', **bfp)),
    ]
)
