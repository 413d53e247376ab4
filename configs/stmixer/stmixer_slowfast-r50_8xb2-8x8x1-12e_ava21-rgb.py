_base_ = [
    '../_base_/models/stmixer_slowfast-r50.py',
    '../_base_/datasets/ava21_rgb_32x2x1.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/default_runtime.py',
]
