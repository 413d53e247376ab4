# Noised ground truth as further queries in training (DN-DETR).
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'
custom_imports = dict(imports=['stmixer_mm.projects.denoising'])

noised = dict(num_groups=2, box_noise=0.4, label_noise=0.2)
model = dict(
    decoder=dict(num_queries=8),  # enough for three persons; the step is shorter
    denoising=dict(type='DenoisingQueries', **noised),
    head=dict(score_mode='product'),  # ranks likely persons first
)
# Denoising bears a higher rate.
optim_wrapper = dict(optimizer=dict(lr=8e-4))
