# Neck: FPN3D; decoder: deformable DETR's.
_base_ = './stmixer_tiny-deformable_toy.py'

model = dict(neck=dict(type='FPN3D', in_channels=[16, 64], out_channels=64))
