# The toy dataset of tools/make_toy_dataset.py: drawn people, 8 actions, 15 frames per
# second, read from the video files.
data_root = 'data/toy'
label_file = f'{data_root}/action_list.pbtxt'

# No flip: it would turn walking left into walking right.
train_pipeline = [
    # Half a GB of frames, so that decoding does not compete with training for the CPU.
    dict(type='OpenVideo', keep_frames=True),
    dict(type='SampleKeyframeClip', clip_len=4, frame_interval=2),
    dict(type='DecodeFrames'),
    dict(type='mmaction.Resize', scale=(-1, 96)),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='mmaction.PackActionInputs'),
]
test_pipeline = train_pipeline

toy = dict(
    type='KeyframeDataset',
    label_file=label_file,
    data_prefix=dict(img=f'{data_root}/videos'),
    num_classes=9,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file=f'{data_root}/train.csv', pipeline=train_pipeline, **toy),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        ann_file=f'{data_root}/val.csv', pipeline=test_pipeline, test_mode=True, **toy
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='FrameMAPMetric',
    ann_file=f'{data_root}/val.csv',
    label_file=label_file,
    num_classes=9,
)
test_evaluator = val_evaluator
del toy
