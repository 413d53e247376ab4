# Backbone: mmdet's PVTv2 transformer on each frame by itself.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

pvt = dict(type='mmdet.PyramidVisionTransformerV2', embed_dims=16, num_layers=[1] * 4)
model = dict(
    backbone=dict(type='FramewiseBackbone', _delete_=True, backbone=pvt),
    neck=dict(in_channels=[16, 32, 80, 128]),
)
