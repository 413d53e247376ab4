# Neck: BiFPN3D; decoder: deformable DETR's.
_base_ = './stmixer_tiny-deformable_toy.py'

model = dict(neck=dict(type='BiFPN3D', num_repeats=2))
