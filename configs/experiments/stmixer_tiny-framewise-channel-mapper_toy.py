# Neck: mmdet's ChannelMapper, frame by frame.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

model = dict(
    neck=dict(
        type='FramewiseNeck',
        _delete_=True,
        neck=dict(type='mmdet.ChannelMapper', in_channels=[16, 64], out_channels=64),
    )
)
