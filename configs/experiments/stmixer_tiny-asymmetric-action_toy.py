# Actions by asymmetric loss instead of binary cross-entropy.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

loss_action = dict(_delete_=True, type='AsymmetricLoss')
model = dict(head=dict(loss_action=loss_action))
