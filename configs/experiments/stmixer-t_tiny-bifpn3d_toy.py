# Tubelets on weighted two-way fusion, repeated.
_base_ = '../stmixer/stmixer-t_tiny_1xb8-4x3x1_toy.py'

model = dict(neck=dict(type='BiFPN3D', num_repeats=2))
