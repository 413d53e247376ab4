_base_ = './stmixer.py'

model = dict(
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
