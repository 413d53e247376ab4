# Persons by focal loss of one logit, the margin, instead of a weighted softmax.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'

model = dict(
    head=dict(
        loss_person=dict(_delete_=True, type='mmdet.FocalLoss', loss_weight=2.0),
        score_thr=0.3,  # a focal loss leaves scores nearer to 0.5
    )
)
