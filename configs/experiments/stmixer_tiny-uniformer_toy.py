# Backbone: UniFormer, tapped behind each stage; it strides time: T 4 -> 2.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

sizes = dict(depth=[1, 1, 1, 1], embed_dim=[16, 32, 64, 128], head_dim=16)
backbone = dict(type='mmaction.UniFormer', pretrained2d=False, **sizes)
taps = ['blocks1', 'blocks2', 'blocks3', 'norm']
model = dict(
    backbone=dict(type='TappedBackbone', _delete_=True, backbone=backbone, taps=taps),
    neck=dict(in_channels=[16, 32, 64, 128]),
    decoder=dict(num_frames=2),
)
