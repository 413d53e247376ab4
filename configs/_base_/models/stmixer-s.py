# As stmixer-n, with a larger backbone and a decoder of twice the width. With two shifts a
# stream would save less than three quarters of the products.
_base_ = './stmixer-n.py'

url = _base_.url.replace('cspnext-tiny', 'cspnext-s')
init_cfg = dict(checkpoint=url)
model = dict(
    backbone=dict(
        backbone=dict(deepen_factor=0.33, widen_factor=0.5, init_cfg=init_cfg),
        shifts=[2],
    ),
    neck=dict(in_channels=[128, 256, 512], out_channels=128),
    decoder=dict(
        embed_dims=128,
        num_queries=30,
        num_heads=8,
        feedforward_channels=512,
        num_points=16,
    ),
)
