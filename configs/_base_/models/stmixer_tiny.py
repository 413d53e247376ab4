# A small STMixer that trains from scratch on a CPU.
_base_ = './stmixer.py'

num_classes = 9

model = dict(
    backbone=dict(
        type='ResNet3dSlowOnly',
        depth=18,
        base_channels=16,
        pretrained=None,
        inflate=(0, 1, 1, 1),
        out_indices=(0, 1, 2, 3),
        zero_init_residual=False,
    ),
    neck=dict(
        type='ChannelProjection3D', in_channels=[16, 32, 64, 128], out_channels=64
    ),
    decoder=dict(
        num_frames=8,
        embed_dims=64,
        num_queries=20,
        num_stages=3,
        num_heads=4,
        feedforward_channels=256,
        num_groups=2,
        num_points=16,
        num_classes=num_classes,
    ),
    head=dict(num_classes=num_classes, fallback_topk=0),
)
