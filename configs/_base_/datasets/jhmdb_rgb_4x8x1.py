# JHMDB51-21 in small frames, which tools/data/jhmdb/extract_frames.py makes of the videos.
data_root = 'data/jhmdb'
split = 1
files = dict(
    ann_file='JHMDB-GT.pkl',
    data_root=data_root,
    data_prefix=dict(img='frames_256x192'),
)

clip = dict(type='SampleKeyframeClip', clip_len=4, frame_interval=8, allow_short=True)
train_pipeline = [
    clip,
    dict(type='DecodeFrameFiles'),
    dict(type='CropEmptyPart', prob=0.1),
    dict(
        type='mmaction.RandomResizedCrop',
        area_range=(0.5, 1.0),
        aspect_ratio_range=(1.0, 1.78),
    ),
    dict(type='mmaction.Resize', scale=(256, 192), keep_ratio=False),
    dict(type='FilterBoxes', min_size=4),
    dict(type='mmaction.Flip', flip_ratio=0.5),
    # The hue of mmaction's jitter does not run with numpy 2.
    dict(
        type='mmaction.ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3, hue=0
    ),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='mmaction.PackActionInputs'),
]
test_pipeline = [
    clip,
    dict(type='DecodeFrameFiles'),
    dict(type='mmaction.Resize', scale=(-1, 192)),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='mmaction.PackActionInputs'),
]

tubes = dict(type='TubeDataset', split=split, use_frames=True, **files)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        frame_stride=4,
        bystanders_file='bystanders.csv',
        pipeline=train_pipeline,
        **tubes,
    ),
)
# Every frame of the test videos.
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(all_frames=True, pipeline=test_pipeline, test_mode=True, **tubes),
)
test_dataloader = val_dataloader

truth = dict(split=split, ann_file='JHMDB-GT.pkl', data_root=data_root)
val_evaluator = [
    dict(type='TubeFrameMAPMetric', **truth),
    dict(type='VideoMAPMetric', iou_thrs=(0.5, 0.2, 0.75, '0.5:0.95'), **truth),
]
test_evaluator = val_evaluator
