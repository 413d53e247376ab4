_base_ = './stmixer_slowfast-r50_8xb2-8x8x1-12e_ava22-rgb.py'

# Kinetics-400 weights of the host's zoo for the backbone. They lack the non-local
# blocks, which start as the identity, and their lateral convolutions have kernel 7,
# so ours start from random weights.
url = (
    'https://download.openmmlab.com/mmaction/v1.0/recognition/slowfast/'
    'slowfast_r101_8xb8-8x8x1-256e_kinetics400-rgb/'
    'slowfast_r101_8xb8-8x8x1-256e_kinetics400-rgb_20220901-9c0e09bd.pth'
)
model = dict(
    init_cfg=dict(checkpoint=url),
    backbone=dict(depth=101, fusion_kernel=5, non_local_blocks=(6, 13, 20)),
)
