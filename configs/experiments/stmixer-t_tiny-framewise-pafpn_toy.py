# Tubelets on mmdet's PAFPN, frame by frame.
_base_ = '../stmixer/stmixer-t_tiny_1xb8-4x3x1_toy.py'

model = dict(
    neck=dict(
        type='FramewiseNeck',
        _delete_=True,
        neck=dict(
            type='mmdet.PAFPN', in_channels=[16, 64], out_channels=64, num_outs=3
        ),
    )
)
