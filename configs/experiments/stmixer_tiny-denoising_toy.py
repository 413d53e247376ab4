# Noised ground truth as further queries in training (DN-DETR).
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

model = dict(
    denoising=dict(
        type='DenoisingQueries', num_groups=5, box_noise=0.4, label_noise=0.2
    )
)
