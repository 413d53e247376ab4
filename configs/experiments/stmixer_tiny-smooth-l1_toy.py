# Smooth L1 loss of the boxes instead of L1; beta is a share of the frame.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

model = dict(head=dict(loss_bbox=dict(type='mmdet.SmoothL1Loss', beta=0.05)))
