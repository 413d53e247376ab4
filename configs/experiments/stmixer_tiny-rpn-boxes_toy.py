# The queries start from the proposals of mmdet's RPN on the keyframe.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'
custom_imports = dict(imports=['stmixer_mm.projects.proposals'])

rpn = dict(type='mmdet.RPNHead', anchor_generator=dict(strides=(4, 8)))
model = dict(initial_boxes=dict(type='ProposalBoxes', dense_head=rpn))
