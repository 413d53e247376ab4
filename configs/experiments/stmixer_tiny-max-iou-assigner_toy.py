# Every query whose box overlaps a person enough stands for it: one to many.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

assigner = dict(
    _delete_=True,
    type='mmdet.MaxIoUAssigner',
    pos_iou_thr=0.6,
    neg_iou_thr=0.5,
    iou_calculator=dict(type='mmdet.BboxOverlaps2D'),
)
model = dict(head=dict(assigner=assigner))
