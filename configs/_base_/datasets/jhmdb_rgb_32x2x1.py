# JHMDB51-21 as tools/data/jhmdb/README.md lays it out: extracted frames. Its videos
# are shorter than the clips, whose outer frames then repeat.
data_root = 'data/jhmdb'
ann_file = f'{data_root}/JHMDB-GT.pkl'
split = 1

file_client_args = dict(io_backend='disk')
train_pipeline = [
    dict(type='SampleKeyframeClip', clip_len=32, frame_interval=2, allow_short=True),
    dict(type='DecodeFrameFiles', **file_client_args),
    dict(type='RandomShortSideResize', short_range=(256, 320), max_long=1333),
    dict(type='mmaction.Flip', flip_ratio=0.5),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='mmaction.PackActionInputs'),
]
test_pipeline = [
    dict(type='SampleKeyframeClip', clip_len=32, frame_interval=2, allow_short=True),
    dict(type='DecodeFrameFiles', **file_client_args),
    dict(type='mmaction.Resize', scale=(-1, 256)),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='mmaction.PackActionInputs'),
]

tubes = dict(
    type='TubeDataset',
    ann_file=ann_file,
    split=split,
    data_prefix=dict(img=f'{data_root}/Frames'),
    use_frames=True,
    filename_tmpl='{:05}.png',
    num_classes=22,
)
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        # Neighbours show nearly the same. This package's choice, not the paper's.
        frame_stride=2,
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

val_evaluator = [
    dict(type='TubeFrameMAPMetric', ann_file=ann_file, split=split),
    dict(
        type='VideoMAPMetric',
        ann_file=ann_file,
        split=split,
        iou_thrs=(0.5, 0.2, 0.75, '0.5:0.95'),
    ),
]
test_evaluator = val_evaluator
del tubes
