# Person scores that learn the IoU of their box, by varifocal loss.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

loss_person = dict(_delete_=True, type='mmdet.VarifocalLoss', loss_weight=2.0)
model = dict(head=dict(loss_person=loss_person, person_target='iou', score_thr=0.3))
