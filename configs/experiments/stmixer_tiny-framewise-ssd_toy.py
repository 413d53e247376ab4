# Neck: mmdet's SSDNeck, frame by frame; its levels then get one width.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

ssd = dict(type='mmdet.SSDNeck', in_channels=[16, 64], out_channels=[16, 64, 64])
further = dict(level_strides=[2], level_paddings=[1])
model = dict(
    neck=[
        dict(type='FramewiseNeck', neck=dict(**ssd, **further)),
        dict(type='ChannelProjection3D', in_channels=[16, 64, 64], out_channels=64),
    ]
)
