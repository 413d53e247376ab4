# Backbone: X3D, tapped behind each stage, without its last convolution.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

x3d = dict(type='mmaction.X3D', gamma_w=0.5, gamma_b=2.25, gamma_d=0.3)
taps = dict(taps=['layer1', 'layer2', 'layer3', 'layer4'], drop=['conv5'])
model = dict(
    backbone=dict(type='TappedBackbone', _delete_=True, backbone=x3d, **taps),
    neck=dict(in_channels=[16, 32, 64, 128]),
)
