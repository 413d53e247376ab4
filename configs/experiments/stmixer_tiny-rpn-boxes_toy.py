# The queries start from the proposals of mmdet's RPN on the keyframe.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'
custom_imports = dict(imports=['stmixer_mm.projects.proposals'])

# As in mmdet's rpn_r50_fpn.
assigner = dict(
    type='MaxIoUAssigner', pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3
)
sampler = dict(
    type='RandomSampler', num=256, pos_fraction=0.5, add_gt_as_proposals=False
)
anchors = dict(scales=[8], ratios=[0.5, 1.0, 2.0], strides=(4, 8))
rpn = dict(
    type='mmdet.RPNHead',
    feat_channels=64,
    anchor_generator=dict(type='AnchorGenerator', **anchors),
    loss_bbox=dict(type='L1Loss'),
    train_cfg=dict(
        assigner=assigner, sampler=sampler, allowed_border=-1, pos_weight=-1
    ),
)
model = dict(initial_boxes=dict(type='ProposalBoxes', dense_head=rpn))
