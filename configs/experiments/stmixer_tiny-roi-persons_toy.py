# Two stages instead of one: mmaction2's AVARoIHead on the boxes of STMixer's decoder.
_base_ = '../roi/roi_tiny_1xb8-4x3x1_toy.py'

model = dict(persons={{_base_.person_branch}})
