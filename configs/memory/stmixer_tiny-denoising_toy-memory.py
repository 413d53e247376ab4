# The detector whose persons the memory of stmixer_tiny-memory_toy-memory.py remembers.
# Of its ten actions two show in no clip.
_base_ = [
    '../_base_/models/stmixer_tiny.py',
    '../_base_/datasets/toy_memory.py',
    '../_base_/schedules/adamw_few_epochs.py',
    '../_base_/default_runtime.py',
]
custom_imports = dict(imports=['stmixer_mm.projects.denoising'])

# As in experiments/stmixer_tiny-denoising_toy.py, on videos of twice the length.
model = dict(
    decoder=dict(num_queries=8),
    denoising=dict(
        type='DenoisingQueries', num_groups=2, box_noise=0.4, label_noise=0.2
    ),
    head=dict(num_classes=11, score_mode='product'),
)
optim_wrapper = dict(optimizer=dict(lr=8e-4))
train_cfg = dict(max_epochs=4, val_interval=4)
randomness = dict(seed=0)
