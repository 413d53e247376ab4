# Decoder: deformable DETR's; temporal queries read the maps of all frames.
_base_ = './stmixer_tiny-deformable_toy.py'

model = dict(decoder=dict(memory='time'))
