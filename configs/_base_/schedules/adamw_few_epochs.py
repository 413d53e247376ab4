# For few epochs of many steps, of which a whole one would be too long a warm-up.
_base_ = './adamw_from_scratch.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, eta_min=1.2e-5),
]
