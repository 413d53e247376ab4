# Detector and maps of stmixer-n learned together, from ImageNet weights, in one training.
_base_ = './stmixer-n-maps_1xb8-4x8x1-2e_jhmdb-rgb.py'
load_from = None

model = dict(backbone=dict(backbone=dict(checkpoint='data/efficientnet-lite0.pth')))
optim_wrapper = dict(
    optimizer=dict(lr=5e-4),
    paramwise_cfg=dict(
        _delete_=True,
        custom_keys={
            'backbone': dict(lr_mult=0.2),
            'neck.maps': dict(lr_mult=4.0),
        },
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, eta_min_ratio=0.02),
]
train_cfg = dict(max_epochs=6, val_interval=6)
