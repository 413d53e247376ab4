_base_ = [
    '../_base_/models/stmixer_tiny.py',
    '../_base_/datasets/toy.py',
    '../_base_/schedules/adamw_few_epochs.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=9))
train_cfg = dict(max_epochs=4, val_interval=4)
randomness = dict(seed=0)
