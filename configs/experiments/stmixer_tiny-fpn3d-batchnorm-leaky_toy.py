# Neck: a feature pyramid with batch norm and leaky ReLU everywhere, frame by frame.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

norm_cfg = dict(type='BN3d')
act_cfg = dict(type='LeakyReLU', negative_slope=0.1)
model = dict(
    neck=dict(type='FPN3D', norm_cfg=norm_cfg, act_cfg=act_cfg, temporal_kernel=1)
)
