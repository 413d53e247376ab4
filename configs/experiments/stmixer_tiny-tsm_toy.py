# Backbone: TSM, a 2-D ResNet that shifts channels between the frames of a clip.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

model = dict(
    backbone=dict(
        type='FramewiseBackbone',
        _delete_=True,
        backbone=dict(type='mmaction.ResNetTSM', depth=18, pretrained2d=False)
        | dict(num_segments=4, out_indices=(0, 1, 2, 3)),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
