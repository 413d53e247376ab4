# Neck: mmdet's NASFPN on five levels, frame by frame.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

sizes = dict(in_channels=[16, 64], out_channels=64, num_outs=5, stack_times=1)
model = dict(
    neck=dict(
        type='FramewiseNeck',
        _delete_=True,
        neck=dict(type='mmdet.NASFPN', norm_cfg=dict(type='BN'), **sizes),
    )
)
