train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-5, weight_decay=1e-4, fused=True),
    # '.bn.' is in the names of the backbones' batch norms and in no others.
    paramwise_cfg=dict(custom_keys={'.bn.': dict(decay_mult=0.0)}),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.1,
        end=2,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='MultiStepLR',
        milestones=[5, 8],
        gamma=0.1,
        by_epoch=True,
    ),
]

# The learning rate is for this many clips in all; --auto-scale-lr follows it.
auto_scale_lr = dict(enable=False, base_batch_size=16)
