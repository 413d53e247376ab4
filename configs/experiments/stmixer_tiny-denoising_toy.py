# Noised ground truth as further queries in training (DN-DETR).
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

noised = dict(num_groups=3, box_noise=0.4, label_noise=0.2)
model = dict(
    # Enough for three persons: a shorter step leaves time for more of them.
    decoder=dict(num_queries=12),
    denoising=dict(type='DenoisingQueries', **noised),
)
# Denoising bears a higher rate.
optim_wrapper = dict(optimizer=dict(lr=8e-4))
