_base_ = [
    '../_base_/models/stmixer_tiny.py',
    '../_base_/datasets/toy.py',
    '../_base_/schedules/adamw_from_scratch.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=9))
max_epochs = 13

train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=1, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        begin=1,
        end=max_epochs,
        eta_min=1.2e-5,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(enable=False, base_batch_size=8)
randomness = dict(seed=0)
