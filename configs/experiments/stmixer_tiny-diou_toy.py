# DIoU loss instead of GIoU.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

model = dict(head=dict(loss_iou=dict(type='mmdet.DIoULoss')))
