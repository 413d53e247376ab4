# Backbone: I3D (ResNet3d). Its pool behind the first stage halves time: T 4 -> 2.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

backbone = dict(type='mmaction.ResNet3d', depth=18, num_stages=2, base_channels=16)
backbone |= dict(spatial_strides=(1, 2), temporal_strides=(1, 1), dilations=(1, 1))
backbone |= dict(conv1_kernel=(5, 7, 7), inflate=(1, 1), out_indices=(0, 1))
model = dict(
    backbone=dict(_delete_=True, **backbone),
    neck=dict(in_channels=[16, 32]),
    decoder=dict(num_frames=2),
)
