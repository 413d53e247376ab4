# Neck: mmdet's FPN_CARAFE with pixel shuffling; CARAFE's own kernel needs a GPU.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

upsample_cfg = dict(type='pixel_shuffle', upsample_kernel=3)
sizes = dict(in_channels=[16, 64], out_channels=64, num_outs=2)
model = dict(
    neck=dict(
        type='FramewiseNeck',
        _delete_=True,
        neck=dict(type='mmdet.FPN_CARAFE', upsample_cfg=upsample_cfg, **sizes),
    )
)
