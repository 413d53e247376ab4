# Actions by focal loss instead of binary cross-entropy.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

# At the start, when all actions are at 1 %, it is about a quarter of cross-entropy.
loss_action = dict(_delete_=True, type='mmdet.FocalLoss', loss_weight=4.0)
model = dict(head=dict(loss_action=loss_action))
