_base_ = [
    '../_base_/models/stmixer-t_tiny.py',
    '../_base_/datasets/toy_tubes.py',
    '../_base_/schedules/adamw_few_epochs.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=9))
optim_wrapper = dict(optimizer=dict(lr=8e-4))
train_cfg = dict(max_epochs=1, val_interval=1)
randomness = dict(seed=0)
