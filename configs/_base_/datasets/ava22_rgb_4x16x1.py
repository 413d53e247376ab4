# AVA v2.2 as the host's tools/data/ava prepares it: frames extracted at 30 per second,
# from second 900 of each film on.
data_root = 'data/ava/rawframes'
ann_root = 'data/ava/annotations'
label_file = f'{ann_root}/ava_action_list_v2.2_for_activitynet_2019.pbtxt'

file_client_args = dict(io_backend='disk')
train_pipeline = [
    dict(type='SampleKeyframeClip', clip_len=4, frame_interval=16),
    dict(type='DecodeFrameFiles', **file_client_args),
    dict(type='RandomShortSideResize', short_range=(256, 320), max_long=1333),
    dict(type='mmaction.Flip', flip_ratio=0.5),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='mmaction.PackActionInputs'),
]
test_pipeline = [
    dict(type='SampleKeyframeClip', clip_len=4, frame_interval=16),
    dict(type='DecodeFrameFiles', **file_client_args),
    dict(type='mmaction.Resize', scale=(-1, 256)),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='mmaction.PackActionInputs'),
]

ava = dict(
    type='KeyframeDataset',
    label_file=label_file,
    data_prefix=dict(img=data_root),
    use_frames=True,
    fps=30,
    timestamp_start=900,
)
val_ann_file = f'{ann_root}/ava_val_v2.2.csv'
val_exclude_file = f'{ann_root}/ava_val_excluded_timestamps_v2.2.csv'

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        ann_file=f'{ann_root}/ava_train_v2.2.csv',
        exclude_file=f'{ann_root}/ava_train_excluded_timestamps_v2.2.csv',
        pipeline=train_pipeline,
        **ava,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        ann_file=val_ann_file,
        exclude_file=val_exclude_file,
        pipeline=test_pipeline,
        test_mode=True,
        **ava,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='FrameMAPMetric',
    ann_file=val_ann_file,
    label_file=label_file,
    exclude_file=val_exclude_file,
)
test_evaluator = val_evaluator
