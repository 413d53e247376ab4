# What all STMixer models share: everything behind the neck, at its released size.
model = dict(
    type='STMixer',
    data_preprocessor=dict(
        type='ClipDataPreprocessor',
        mean=[114.75, 114.75, 114.75],
        std=[57.375, 57.375, 57.375],
        pad_size_divisor=32,
    ),
    decoder=dict(
        type='STMixerDecoder',
        num_frames=None,  # frames of the feature maps; each backbone says how many
        embed_dims=256,
        num_queries=100,
        num_stages=6,
        num_heads=8,
        feedforward_channels=2048,
        num_groups=4,
        num_points=32,
        out_multiplier=4,
        sampling_backend='auto',
    ),
    head=dict(
        type='STMixerHead',
        num_classes=81,  # actions + 1: class 0 is the host's dummy
        assigner=dict(
            type='mmdet.HungarianAssigner',
            match_costs=[
                dict(type='mmdet.ClassificationCost', weight=2.0),
                dict(type='mmdet.BBoxL1Cost', weight=2.0, box_format='xyxy'),
                dict(type='mmdet.IoUCost', iou_mode='giou', weight=2.0),
            ],
        ),
        loss_person=dict(
            type='mmdet.CrossEntropyLoss', class_weight=[1.0, 0.1], loss_weight=2.0
        ),
        loss_bbox=dict(type='mmdet.L1Loss', loss_weight=2.0),
        loss_iou=dict(type='mmdet.GIoULoss', loss_weight=2.0),
        loss_action=dict(
            type='mmdet.CrossEntropyLoss', use_sigmoid=True, loss_weight=0.3
        ),
        score_thr=0.6,
        # AVA's metric gains from a guess where no person is found; set 0 for videos
        # with empty scenes.
        fallback_topk=3,
        score_mode='action',
    ),
)
