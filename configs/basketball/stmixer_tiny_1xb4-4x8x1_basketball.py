# Remembers the nine annotated keyframes of one ten-second clip. A check of the whole
# chain on real input, not a model of use: data/basketball holds basketball.mp4,
# keyframes.csv and action_list.pbtxt.
_base_ = [
    '../_base_/models/stmixer_tiny.py',
    '../_base_/datasets/toy.py',
    '../_base_/schedules/adamw_from_scratch.py',
    '../_base_/default_runtime.py',
]

data_root = 'data/basketball'
max_iters = 400

model = dict(head=dict(num_classes=5))

train_pipeline = _base_.train_pipeline
train_pipeline[1].update(frame_interval=8)
train_pipeline[3].update(scale=(-1, 128))
test_pipeline = train_pipeline

files = dict(data_root=data_root, ann_file='keyframes.csv')
dataset = dict(data_prefix=dict(img=''), pipeline=train_pipeline, **files)
train_dataloader = dict(
    batch_size=4, sampler=dict(type='InfiniteSampler'), dataset=dataset
)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = files
test_evaluator = files

train_cfg = dict(
    _delete_=True,
    type='IterBasedTrainLoop',
    max_iters=max_iters,
    val_interval=max_iters,
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=50, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=50, eta_min=1.2e-5, by_epoch=False),
]
auto_scale_lr = dict(base_batch_size=4)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=max_iters))
log_processor = dict(by_epoch=False)

use = dict(note='it remembers nine keyframes of one basketball clip and nothing else')
