# A small STMixer that trains from scratch on a CPU in minutes.
_base_ = './stmixer.py'

num_classes = 9

model = dict(
    backbone=dict(
        type='ResNet3dSlowOnly',
        depth=18,
        stage_blocks=(1, 1, 1),
        num_stages=3,
        spatial_strides=(1, 2, 2),
        temporal_strides=(1, 1, 1),
        dilations=(1, 1, 1),
        inflate=(0, 1, 1),
        base_channels=16,
        # Half the usual strides, since clips are small: a box is sampled from maps of
        # about a quarter of its size.
        with_pool1=False,
        out_indices=(1, 2),
        pretrained=None,
        zero_init_residual=False,
    ),
    neck=dict(type='ChannelProjection3D', in_channels=[32, 64], out_channels=64),
    decoder=dict(
        num_frames=8,
        embed_dims=64,
        num_queries=20,
        num_stages=4,
        num_heads=4,
        feedforward_channels=256,
        num_groups=2,
        num_points=16,
        num_classes=num_classes,
        strides=(4, 8),
    ),
    head=dict(
        num_classes=num_classes,
        # A mean over the classes, and 24 is for 80 of them: with few classes it would
        # drown the losses of the boxes.
        loss_action=dict(loss_weight=10.0),
        fallback_topk=0,
    ),
)
