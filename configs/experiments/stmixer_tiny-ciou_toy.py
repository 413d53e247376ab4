# CIoU loss instead of GIoU.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

# With the default eps (square pixels) the host divides 0 by 0 at an exactly right box.
model = dict(head=dict(loss_iou=dict(type='mmdet.CIoULoss', eps=0.1)))
