# Backbone: SlowFast, both pathways fused; one slow frame of four: T 4 -> 1.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

model = dict(
    backbone=dict(type='ResNet3dSlowFastPyramid', _delete_=True, depth=50),
    neck=dict(in_channels=[288, 576, 1152, 2304]),
    decoder=dict(num_frames=1),
)
