# For small models that start from random weights; the configs say how long.
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1.2e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=10.0),
)
