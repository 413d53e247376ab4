# A small STMixer on the toy images of tests/test_projects/tiny_coco.py, in mmdet's tools: learns
# them by heart on a CPU in less than a minute.
_base_ = ['mmdet::_base_/default_runtime.py', '../_base_/models/stmixer_tiny.py']
custom_imports = dict(
    imports=['stmixer_mm.projects.still_images'], allow_failed_imports=False
)

max_epochs = 60
data_root = 'data/toy-coco/'
metainfo = dict(classes=('disk', 'square', 'bar'))

model = dict(
    type='StillImageSTMixer',
    data_preprocessor=dict(
        _delete_=True,
        type='mmdet.DetDataPreprocessor',
        mean=[114.75, 114.75, 114.75],
        std=[57.375, 57.375, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        _delete_=True,
        type='mmdet.ResNet',
        depth=18,
        num_stages=2,
        base_channels=16,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(0, 1),
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
    ),
    neck=dict(
        _delete_=True,
        type='mmdet.FPN',
        in_channels=[16, 32],
        out_channels=64,
        num_outs=2,
    ),
    decoder=dict(num_frames=1),
    head=dict(
        num_classes=4,  # three drawn shapes, and the head's dummy class 0
        score_thr=0.0,
        score_mode='product',
    ),
)

pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(96, 96), keep_ratio=True),
    dict(type='PackDetInputs'),
]
dataset = dict(
    type='CocoDataset',
    data_root=data_root,
    data_prefix=dict(img='images/'),
    metainfo=metainfo,
    pipeline=pipeline,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file='train.json', **dataset),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='train.json', test_mode=True, **dataset),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='CocoMetric', ann_file=f'{data_root}train.json', metric='bbox'
)
test_evaluator = val_evaluator

train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1.2e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=1, eta_min=1.2e-5, convert_to_iter_based=True),
]
custom_hooks = [dict(type='CheckModelHook'), dict(type='ExactResumeHook')]
default_hooks = dict(checkpoint=dict(interval=max_epochs))
randomness = dict(seed=0)
