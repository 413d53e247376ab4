_base_ = './stmixer_vit-b-videomae_8xb1-16x4x1-12e_ava22-rgb.py'

# Kinetics-400 weights of the host's zoo for the backbone.
url = (
    'https://download.openmmlab.com/mmaction/v1.0/recognition/videomae/'
    'vit-large-p16_videomae-k400-pre_16x4x1_kinetics-400_20221013-229dbb03.pth'
)
model = dict(
    init_cfg=dict(checkpoint=url),
    backbone=dict(embed_dims=1024, depth=24, num_heads=16),
    neck=dict(in_channels=1024),
)
