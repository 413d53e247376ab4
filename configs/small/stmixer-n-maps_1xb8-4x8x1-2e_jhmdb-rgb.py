# stmixer-n of JHMDB, whose actions are then learned anew as maps: linear in what the
# backbone sees of frames and of their differences, as 660 videos are soon memorised.
_base_ = './stmixer-n_1xb8-4x8x1-5e_jhmdb-rgb.py'
custom_imports = dict(
    imports=[
        'stmixer_mm.projects.streaming',
        'stmixer_mm.projects.denoising',
        'stmixer_mm.projects.action_maps',
    ]
)
# The mean of the weights after epochs 3 to 5 of the base config.
load_from = 'work_dirs/stmixer-n_1xb8-4x8x1-5e_jhmdb-rgb/model.safetensors'

model = dict(
    backbone=dict(with_differences=True),
    neck=dict(
        type='ActionMaps',
        num_actions=21,
        map_channels=[48, 80, 224, 384],
        num_parts=3,
        dropout=0.3,
    ),
    decoder=dict(type='ActionMapDecoder'),
    head=dict(
        single_label=True,
        # Boxes that are not an actor's teach nothing.
        loss_action=dict(
            use_sigmoid=False, class_weight=[0.0] + [1.0] * 21, loss_weight=1.0
        ),
    ),
)
# Persons and boxes are learned; the maps are new.
optim_wrapper = dict(
    optimizer=dict(lr=2e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        _delete_=True,
        custom_keys={
            'backbone': dict(lr_mult=0.1),
            'decoder': dict(lr_mult=0.05),
            'neck.projections': dict(lr_mult=0.05),
        },
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=30),
    dict(type='CosineAnnealingLR', by_epoch=False, eta_min_ratio=0.01),
]
train_dataloader = dict(dataset=dict(frame_stride=8))
train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(check_checkpoint=dict(allow=['neck.maps']))

use = dict(
    note='stmixer-n, trained on J-HMDB-21 (frame mAP@0.5 0.559 on split 1): persons of at '
    'least a fifth of the frame height, 21 actions (brush_hair, catch, clap, '
    'climb_stairs, golf, jump, kick_ball, pick, pour, pullup, push, run, shoot_ball, '
    'shoot_bow, shoot_gun, sit, stand, swing_baseball, throw, walk, wave)',
    # Of the highest scores in test clips cut to parts without persons, 95 % are lower:
    # tools/analysis/calibrate.py.
    person_thr=0.93,
)
