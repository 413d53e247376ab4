# A small STMixer that trains from scratch on a CPU in minutes.
_base_ = './stmixer.py'

model = dict(
    # A CPU takes 0.93 of the time for a step.
    data_preprocessor=dict(channels_last=True),
    backbone=dict(
        type='mmaction.ResNet3dSlowOnly',
        depth=18,
        stage_blocks=(2, 2, 1),
        num_stages=3,
        # Clips are small: the deepest maps keep stride 8.
        spatial_strides=(1, 2, 1),
        temporal_strides=(1, 1, 1),
        dilations=(1, 1, 1),
        inflate=(0, 1, 1),
        base_channels=16,
        out_indices=(0, 2),
        pretrained=None,
        zero_init_residual=False,
    ),
    neck=dict(type='ChannelProjection3D', in_channels=[16, 64], out_channels=64),
    decoder=dict(
        num_frames=4,
        embed_dims=64,
        num_queries=20,
        num_stages=4,
        num_heads=4,
        feedforward_channels=256,
        num_groups=2,
        num_points=16,
    ),
    head=dict(fallback_topk=0),
)
