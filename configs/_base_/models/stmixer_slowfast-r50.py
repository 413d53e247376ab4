_base_ = './stmixer.py'

model = dict(
    backbone=dict(type='ResNet3dSlowFastPyramid', depth=50, fusion_kernel=7),
    neck=dict(
        type='ChannelProjection3D',
        in_channels=[288, 576, 1152, 2304],
        out_channels=256,
    ),
    decoder=dict(num_frames=8),
)
