_base_ = './stmixer.py'

# Kinetics-400 weights of the host's zoo for the backbone.
url = (
    'https://download.openmmlab.com/mmaction/v1.0/recognition/slowfast/'
    'slowfast_r50_8xb8-8x8x1-steplr-256e_kinetics400-rgb/'
    'slowfast_r50_8xb8-8x8x1-steplr-256e_kinetics400-rgb_20220818-b62a501f.pth'
)
model = dict(
    init_cfg=dict(type='Pretrained', checkpoint=url),
    backbone=dict(type='ResNet3dSlowFastPyramid', depth=50, fusion_kernel=7),
    neck=dict(
        type='ChannelProjection3D',
        in_channels=[288, 576, 1152, 2304],
        out_channels=256,
    ),
    decoder=dict(num_frames=8),
)
