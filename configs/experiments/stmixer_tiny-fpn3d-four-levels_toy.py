# Neck: a feature pyramid with two levels more than the backbone.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

model = dict(neck=dict(type='FPN3D', num_outs=4, add_extra_convs='on_output'))
