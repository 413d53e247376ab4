# STMixer on still images, as a detector of mmdet: use mmdet's tools/train.py and
# tools/test.py. Not trained yet.
_base_ = [
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/models/stmixer.py',
]
custom_imports = dict(
    imports=['stmixer_mm.projects.still_images'], allow_failed_imports=False
)

model = dict(
    type='StillImageSTMixer',
    max_per_img=100,
    data_preprocessor=dict(
        _delete_=True,
        type='mmdet.DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='mmdet.ResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    neck=dict(
        type='mmdet.FPN',
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        num_outs=4,
    ),
    decoder=dict(num_frames=1),
    head=dict(
        # COCO's AP wants all pairs of query and class, ranked.
        score_thr=0.0,
        fallback_topk=0,
        score_mode='product',
    ),
)

custom_hooks = [dict(type='CheckModelHook'), dict(type='ExactResumeHook')]
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=2.5e-5, weight_decay=1e-4),
    clip_grad=dict(max_norm=10.0),
)
