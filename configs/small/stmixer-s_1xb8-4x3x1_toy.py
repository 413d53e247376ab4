# stmixer-s from random weights, see stmixer-n_1xb8-4x3x1_toy.py.
_base_ = './stmixer-n_1xb8-4x3x1_toy.py'

model = dict(
    backbone=dict(backbone=dict(deepen_factor=0.33, widen_factor=0.5)),
    neck=dict(in_channels=[64, 128, 256], out_channels=128),
    decoder=dict(embed_dims=128, num_heads=8, feedforward_channels=512),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))  # 8e-4 is too much for this width
