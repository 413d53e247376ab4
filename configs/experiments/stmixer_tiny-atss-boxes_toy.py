# The queries start from the proposals of mmdet's ATSS on the keyframe.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'
custom_imports = dict(imports=['stmixer_mm.projects.proposals'])

# As in mmdet's atss_r50_fpn, but for the ratios: persons are tall, and square anchors
# alone leave many of them without a positive.
anchors = dict(octave_base_scale=8, scales_per_octave=1, ratios=[1.0, 2.0])
atss = dict(
    type='mmdet.ATSSHead',
    feat_channels=64,
    norm_cfg=dict(type='GN', num_groups=32),
    anchor_generator=dict(type='AnchorGenerator', strides=(4, 8), **anchors),
    bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=(0.1, 0.1, 0.2, 0.2)),
    loss_cls=dict(type='FocalLoss', use_sigmoid=True),
    loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
    train_cfg=dict(
        assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1
    ),
)
model = dict(initial_boxes=dict(type='ProposalBoxes', dense_head=atss))
