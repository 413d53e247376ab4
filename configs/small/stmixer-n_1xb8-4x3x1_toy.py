# stmixer-n from random weights, with the schedule of the demo's model. Frames are small
# and pretraining is missing: levels of strides 4 to 16, and more that looks back.
_base_ = [
    '../_base_/models/stmixer-n.py',
    '../_base_/datasets/toy.py',
    '../_base_/schedules/adamw_few_epochs.py',
    '../_base_/default_runtime.py',
]
projects = ['stmixer_mm.projects.streaming', 'stmixer_mm.projects.denoising']
custom_imports = dict(imports=projects)

noised = dict(num_groups=2, box_noise=0.4, label_noise=0.2)
model = dict(
    backbone=dict(
        backbone=dict(init_cfg=None),
        stages=[['stem'], ['stage1'], ['stage2'], ['stage3']],
        out_indices=[1, 2, 3],
        shifts=[1, 2, 3],
        share=0.25,
    ),
    neck=dict(in_channels=[48, 96, 192]),
    decoder=dict(num_frames=4, num_queries=8, num_groups=2, num_points=16),
    denoising=dict(type='DenoisingQueries', **noised),
    head=dict(num_classes=9, fallback_topk=0, score_mode='product'),
)
optim_wrapper = dict(optimizer=dict(lr=8e-4))
train_cfg = dict(max_epochs=4, val_interval=4)
randomness = dict(seed=0)
