# Backbone: C2D, whose pool behind the first stage halves time; the neck undoes it.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

c2d = dict(type='mmaction.C2D', depth=18, num_stages=2, out_indices=(1,))
c2d |= dict(strides=(1, 2), dilations=(1, 1))
taps = dict(taps=['layer1', 'layer2'], time_in_batch=True)
model = dict(
    backbone=dict(type='TappedBackbone', _delete_=True, backbone=c2d, **taps),
    neck=dict(in_channels=[64, 128], num_frames=4),
)
