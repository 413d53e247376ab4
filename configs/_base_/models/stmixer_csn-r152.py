_base_ = './stmixer.py'

# IG-65M and Kinetics-400 weights of the host's zoo for the backbone.
url = (
    'https://download.openmmlab.com/mmaction/v1.0/recognition/csn/'
    'ircsn_ig65m-pretrained-r152-bnfrozen_8xb12-32x2x1-58e_kinetics400-rgb/'
    'ircsn_ig65m-pretrained-r152-bnfrozen_8xb12-32x2x1-58e_kinetics400-rgb'
    '_20220811-7d1dacde.pth'
)
model = dict(
    init_cfg=dict(type='Pretrained', checkpoint=url),
    backbone=dict(
        type='mmaction.ResNet3dCSN',
        depth=152,
        pretrained=None,
        pretrained2d=False,
        bottleneck_mode='ir',
        with_pool2=False,
        out_indices=(0, 1, 2, 3),
        norm_eval=True,
        bn_frozen=True,
    ),
    neck=dict(
        type='ChannelProjection3D',
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        # The network halves time in three stages (32, 16, 8, 4 frames); the decoder
        # needs one T for all levels.
        num_frames=8,
    ),
    decoder=dict(num_frames=8),
)
