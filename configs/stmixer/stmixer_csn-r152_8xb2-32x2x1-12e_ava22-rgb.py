_base_ = [
    '../_base_/models/stmixer_csn-r152.py',
    '../_base_/datasets/ava22_rgb_32x2x1.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/default_runtime.py',
]
