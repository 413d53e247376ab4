# Tubelets on ir-CSN; the neck brings T to 4.
_base_ = '../stmixer/stmixer-t_tiny_1xb8-4x3x1_toy.py'

backbone = dict(type='mmaction.ResNet3dCSN', depth=50, pretrained=None, num_stages=3)
backbone |= dict(stage_blocks=(1, 1, 1), spatial_strides=(1, 2, 2), dilations=(1, 1, 1))
backbone |= dict(temporal_strides=(1, 2, 2), inflate=(1, 1, 1), out_indices=(0, 1, 2))
model = dict(
    backbone=dict(
        _delete_=True, pretrained2d=False, base_channels=8, with_pool2=False, **backbone
    ),
    neck=dict(in_channels=[32, 64, 128], num_frames=4),
)
