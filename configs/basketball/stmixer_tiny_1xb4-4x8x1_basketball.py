# Remembers the nine annotated keyframes of one ten-second clip. A check of the whole
# chain on real input, not a model of use: data/basketball holds basketball.mp4,
# keyframes.csv and action_list.pbtxt.
_base_ = [
    '../_base_/models/stmixer_tiny.py',
    '../_base_/schedules/adamw_from_scratch.py',
    '../_base_/default_runtime.py',
]

data_root = 'data/basketball'
ann_file = f'{data_root}/keyframes.csv'
label_file = f'{data_root}/action_list.pbtxt'
num_classes = 5
max_iters = 400

model = dict(head=dict(num_classes=5))

pipeline = [
    dict(type='OpenVideo', keep_frames=True),
    dict(type='SampleKeyframeClip', clip_len=4, frame_interval=8),
    dict(type='DecodeFrames'),
    dict(type='mmaction.Resize', scale=(-1, 128)),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='mmaction.PackActionInputs'),
]
dataset = dict(
    type='KeyframeDataset',
    ann_file=ann_file,
    label_file=label_file,
    data_prefix=dict(img=data_root),
    num_classes=num_classes,
    pipeline=pipeline,
)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dataset,
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(test_mode=True, **dataset),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='FrameMAPMetric',
    ann_file=ann_file,
    label_file=label_file,
    num_classes=num_classes,
)
test_evaluator = val_evaluator

train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=50, by_epoch=False),
    dict(
        type='CosineAnnealingLR',
        begin=50,
        end=max_iters,
        eta_min=1.2e-5,
        by_epoch=False,
    ),
]
auto_scale_lr = dict(enable=False, base_batch_size=4)
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=max_iters),
)
log_processor = dict(by_epoch=False)
del dataset
