# Tubelets on mmdet's ResNet on each frame by itself: only the queries relate frames.
_base_ = '../stmixer/stmixer-t_tiny_1xb8-4x3x1_toy.py'

model = dict(
    backbone=dict(
        type='FramewiseBackbone',
        _delete_=True,
        backbone=dict(type='mmdet.ResNet', depth=18, base_channels=16, norm_eval=False),
    ),
    neck=dict(in_channels=[16, 32, 64, 128]),
)
