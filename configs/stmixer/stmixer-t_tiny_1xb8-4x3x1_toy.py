_base_ = [
    '../_base_/models/stmixer-t_tiny.py',
    '../_base_/datasets/toy_tubes.py',
    '../_base_/schedules/adamw_few_epochs.py',
    '../_base_/default_runtime.py',
]
custom_imports = dict(
    imports=['stmixer_mm.projects.tubelets', 'stmixer_mm.projects.denoising']
)

model = dict(
    # What arms do shows in time alone; the finest maps show arms.
    backbone=dict(inflate=(1, 1, 1)),
    # Enough for three persons: a shorter step leaves time for more of them.
    decoder=dict(num_frames=4, num_queries=6, num_points=9, frame_actions=True),
    denoising=dict(type='DenoisingTubelets', num_groups=1),
    # Less likely persons add nothing to mean average precision.
    head=dict(num_classes=9, score_thr=0.3),
)
optim_wrapper = dict(optimizer=dict(lr=8e-4))
train_cfg = dict(max_epochs=1, val_interval=1)
randomness = dict(seed=0)
