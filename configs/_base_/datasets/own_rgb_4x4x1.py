# Videos of your own below one folder, as docs/own_data.md lays them out. The frames are
# small, for models that train from scratch.
data_root = 'data/own'

train_pipeline = [
    dict(type='OpenVideo'),
    dict(type='SampleKeyframeClip', clip_len=4, frame_interval=4),
    dict(type='DecodeFrames'),
    dict(type='RandomShortSideResize', short_range=(112, 144), max_long=256),
    dict(type='mmaction.Flip', flip_ratio=0.5),  # not if left and right are actions
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='mmaction.PackActionInputs'),
]
test_pipeline = [
    dict(type='OpenVideo'),
    dict(type='SampleKeyframeClip', clip_len=4, frame_interval=4),
    dict(type='DecodeFrames'),
    dict(type='mmaction.Resize', scale=(-1, 128)),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='mmaction.PackActionInputs'),
]

files = dict(data_root=data_root, label_file='action_list.pbtxt')
val_files = dict(ann_file='val.csv', empty_keyframes_file='val_empty.csv', **files)
videos = dict(type='KeyframeDataset', data_prefix=dict(img='videos'))
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        ann_file='train.csv',
        empty_keyframes_file='train_empty.csv',
        pipeline=train_pipeline,
        **files,
        **videos,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(pipeline=test_pipeline, test_mode=True, **val_files, **videos),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='FrameMAPMetric', **val_files)
test_evaluator = val_evaluator
