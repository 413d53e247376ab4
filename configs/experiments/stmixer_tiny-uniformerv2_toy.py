# Backbone: UniFormerV2's local blocks; for frames of any shape, so no_lmhra.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

sizes = dict(input_resolution=96, width=32, layers=2, heads=2, no_lmhra=True)
host = dict(type='mmaction.UniFormerV2', clip_pretrained=False, **sizes)
host |= dict(n_layers=1, return_list=[1], n_dim=32, n_head=2, mlp_dropout=[0.0])
model = dict(
    backbone=dict(type='UniFormerV2Map', _delete_=True, backbone=host),
    neck=dict(type='ViTPyramid3D', _delete_=True, in_channels=32, out_channels=64),
)
