# The queries start from a grid of boxes instead of the whole frame.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

model = dict(initial_boxes=dict(type='GridBoxes', scale=2.0))
