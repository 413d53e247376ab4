# MultiSports as tools/data/multisports/README.md lays it out: video files, one split
# whose test videos are the validation set.
data_root = 'data/multisports/trainval'
ann_file = f'{data_root}/multisports_GT.pkl'
split = 1

train_pipeline = [
    dict(type='OpenVideo'),
    dict(type='SampleKeyframeClip', clip_len=32, frame_interval=2, allow_short=True),
    dict(type='DecodeFrames'),
    dict(type='RandomShortSideResize', short_range=(256, 320), max_long=1333),
    dict(type='mmaction.Flip', flip_ratio=0.5),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='mmaction.PackActionInputs'),
]
test_pipeline = [
    dict(type='OpenVideo'),
    dict(type='SampleKeyframeClip', clip_len=32, frame_interval=2, allow_short=True),
    dict(type='DecodeFrames'),
    dict(type='mmaction.Resize', scale=(-1, 256)),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='mmaction.PackActionInputs'),
]

tubes = dict(
    type='TubeDataset',
    ann_file=ann_file,
    split=split,
    data_prefix=dict(img=data_root),
    num_classes=67,
)
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        # Neighbours show nearly the same. This package's choice, not the paper's.
        frame_stride=8,
        pipeline=train_pipeline,
        **tubes,
    ),
)
# Every frame of the test videos, also those without a box: detections there count, and
# tubes are linked through them.
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(all_frames=True, pipeline=test_pipeline, test_mode=True, **tubes),
)
test_dataloader = val_dataloader

# As its own evaluator counts; it leaves out some of the labels.
multisports = dict(
    ann_file=ann_file,
    split=split,
    protocol='multisports',
    excluded_labels='multisports',
)
val_evaluator = [
    dict(type='TubeFrameMAPMetric', **multisports),
    dict(
        type='VideoMAPMetric',
        linking='multisports',
        iou_thrs=(0.5, 0.2, 0.75, '0.5:0.95'),
        **multisports,
    ),
]
test_evaluator = val_evaluator
del tubes, multisports
