_base_ = [
    '../_base_/models/stmixer_slowonly-r50.py',
    '../_base_/datasets/ava22_rgb_4x16x1.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/default_runtime.py',
]
