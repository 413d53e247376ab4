# Neck: mmdet's YOLOV3Neck, frame by frame; its levels then get one width.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

yolo = dict(type='mmdet.YOLOV3Neck', in_channels=[64, 16], out_channels=[64, 16])
model = dict(
    neck=[
        dict(type='FramewiseNeck', neck=dict(num_scales=2, **yolo)),
        dict(type='ChannelProjection3D', in_channels=[16, 64], out_channels=64),
    ]
)
