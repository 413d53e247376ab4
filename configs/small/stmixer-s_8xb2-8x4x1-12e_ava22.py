_base_ = [
    '../_base_/models/stmixer-s.py',
    '../_base_/datasets/ava22_rgb_8x4x1.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/default_runtime.py',
]
custom_imports = dict(imports=['stmixer_mm.projects.streaming'])
# A small decoder from random weights, and a backbone that learns to look back.
optim_wrapper = dict(optimizer=dict(lr=1e-4))
