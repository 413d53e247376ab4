# The smallest of the family: CSPNeXt-tiny on each frame, whose last two stages see
# something of the frame before, so that a stream needs no frame twice.
# Configs import stmixer_mm.projects.streaming.
_base_ = './stmixer.py'

# ImageNet weights of mmdet's zoo.
url = (
    'https://download.openmmlab.com/mmdetection/v3.0/rtmdet/cspnext_rsb_pretrain/'
    'cspnext-tiny_imagenet_600e.pth'
)
model = dict(
    # RTMDet's, as the weights have them; a CPU likes channels last.
    data_preprocessor=dict(channels_last=True),
    backbone=dict(
        type='CausalShiftBackbone',
        backbone=dict(
            type='mmdet.CSPNeXt',
            deepen_factor=0.167,
            widen_factor=0.375,
            init_cfg=dict(type='Pretrained', prefix='backbone.', checkpoint=url),
        ),
        stages=[['stem', 'stage1', 'stage2'], ['stage3'], ['stage4']],
        shifts=[1, 2],
    ),
    neck=dict(type='ChannelProjection3D', in_channels=[96, 192, 384], out_channels=64),
    decoder=dict(
        num_frames=8,
        embed_dims=64,
        num_queries=20,
        num_stages=3,
        num_heads=4,
        feedforward_channels=256,
        num_points=9,
        out_multiplier=2,
    ),
)
