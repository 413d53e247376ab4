# Backbone: TimeSformer with divided attention; a pyramid is made of its one map.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

sizes = dict(num_frames=4, img_size=96, patch_size=16, embed_dims=32, num_heads=2)
host = dict(type='mmaction.TimeSformer', num_transformer_layers=2, **sizes)
model = dict(
    backbone=dict(type='TimeSformerMap', _delete_=True, backbone=host),
    neck=dict(type='ViTPyramid3D', _delete_=True, in_channels=32, out_channels=64),
)
