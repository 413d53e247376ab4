# Backbone: R(2+1)D, tapped behind two stages; the neck brings T 4, 2 to 4.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

backbone = dict(type='mmaction.ResNet2Plus1d', depth=18, num_stages=2, base_channels=16)
backbone |= dict(conv_cfg=dict(type='Conv2plus1d'), pretrained2d=False, inflate=(1, 1))
backbone |= dict(spatial_strides=(1, 2), temporal_strides=(1, 2), dilations=(1, 1))
backbone |= dict(out_indices=(0, 1))
taps = ['layer1', 'layer2']
model = dict(
    backbone=dict(type='TappedBackbone', _delete_=True, backbone=backbone, taps=taps),
    neck=dict(in_channels=[16, 32], num_frames=4),
)
