# For a trained detector whose action maps are new: persons and boxes change little.
_base_ = './adamw_from_scratch.py'

optim_wrapper = dict(
    optimizer=dict(lr=2e-3, weight_decay=0.05),
    paramwise_cfg=dict(
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
