# stmixer-n for JHMDB.
_base_ = [
    '../_base_/models/stmixer-n_lite0.py',
    '../_base_/datasets/jhmdb_rgb_4x8x1.py',
    '../_base_/schedules/adamw_few_epochs.py',
    '../_base_/default_runtime.py',
]
custom_imports = dict(
    imports=['stmixer_mm.projects.streaming', 'stmixer_mm.projects.denoising']
)

model = dict(
    backbone=dict(backbone=dict(checkpoint='data/efficientnet-lite0.pth')),
    head=dict(num_classes=22),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.2))))
train_cfg = dict(max_epochs=5, val_interval=5)
randomness = dict(seed=0)
