# Two stages instead of one: mmaction2's AVARoIHead on the ground truth.
_base_ = '../roi/roi_tiny_1xb8-4x3x1_toy.py'

model = dict(persons='ground_truth')
