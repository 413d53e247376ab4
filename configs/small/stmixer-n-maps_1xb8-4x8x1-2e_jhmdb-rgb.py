# stmixer-n of JHMDB, whose actions are then learned anew as maps.
_base_ = [
    '../_base_/models/stmixer-n-maps.py',
    '../_base_/datasets/jhmdb_rgb_4x8x1.py',
    '../_base_/schedules/adamw_new_actions.py',
    '../_base_/maps_runtime.py',
]
# The mean of the weights after epochs 3 to 5 of stmixer-n_1xb8-4x8x1-5e_jhmdb-rgb.
load_from = 'work_dirs/stmixer-n_1xb8-4x8x1-5e_jhmdb-rgb/model.safetensors'

model = dict(
    neck=dict(num_actions=21),
    head=dict(
        num_classes=22,
        single_label=True,
        # Boxes that are not an actor's teach nothing.
        loss_action=dict(
            use_sigmoid=False, class_weight=[0.0] + [1.0] * 21, loss_weight=1.0
        ),
    ),
)
train_dataloader = dict(dataset=dict(frame_stride=8))
train_cfg = dict(max_epochs=2, val_interval=2)
# New: the maps. Left behind: what the queries know of actions.
default_hooks = dict(
    check_checkpoint=dict(
        allow=['neck.maps', r'decoder\.stages\.\d+\.(temporal|action_branch)\.']
    )
)
randomness = dict(seed=0)

use = dict(
    note='stmixer-n, trained on J-HMDB-21 (frame mAP@0.5 0.587 on split 1): persons of at '
    'least a fifth of the frame height, 21 actions (brush_hair, catch, clap, '
    'climb_stairs, golf, jump, kick_ball, pick, pour, pullup, push, run, shoot_ball, '
    'shoot_bow, shoot_gun, sit, stand, swing_baseball, throw, walk, wave)',
    # Of the highest scores in test clips cut to parts without persons, 95 % are lower:
    # tools/analysis/calibrate.py.
    person_thr=0.94,
)
