_base_ = './stmixer.py'

# Kinetics-400 weights of the host's zoo for the backbone.
url = (
    'https://download.openmmlab.com/mmaction/v1.0/recognition/slowonly/'
    'slowonly_imagenet-pretrained-r50_8xb16-4x16x1-steplr-150e_kinetics400-rgb/'
    'slowonly_imagenet-pretrained-r50_8xb16-4x16x1-steplr-150e_kinetics400-rgb'
    '_20220901-e7b65fad.pth'
)
model = dict(
    init_cfg=dict(type='Pretrained', checkpoint=url),
    backbone=dict(
        type='mmaction.ResNet3dSlowOnly',
        depth=50,
        pretrained=None,
        out_indices=(0, 1, 2, 3),
        norm_eval=True,
    ),
    neck=dict(
        type='ChannelProjection3D',
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
    ),
    decoder=dict(num_frames=4),
)
