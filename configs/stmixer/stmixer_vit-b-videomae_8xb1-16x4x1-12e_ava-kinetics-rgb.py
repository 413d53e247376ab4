_base_ = [
    '../_base_/models/stmixer_vit-b.py',
    '../_base_/datasets/ava_kinetics_rgb_16x4x1.py',
    '../_base_/schedules/adamw_vit_12e.py',
    '../_base_/default_runtime.py',
]
train_dataloader = dict(batch_size=1)
