# The two-stage baseline on the backbone and neck of the tiny STMixer.
_base_ = '../stmixer/stmixer_tiny_1xb8-4x3x1_toy.py'
custom_imports = dict(imports=['stmixer_mm.projects.roi'])

# For `persons`: STMixer's own decoder and head, as a detector of persons.
person_branch = dict(decoder={{_base_.model.decoder}}, head={{_base_.model.head}})

model = dict(
    _delete_=True,
    type='RoIDetector',
    data_preprocessor={{_base_.model.data_preprocessor}},
    backbone={{_base_.model.backbone}},
    neck={{_base_.model.neck}},
    # Parts of mmaction2, which registers them in mmdet.
    roi_head=dict(
        type='mmdet.AVARoIHead',
        bbox_roi_extractor=dict(
            type='mmdet.SingleRoIExtractor3D',
            roi_layer_type='RoIAlign',
            featmap_stride=4,
            output_size=8,
            with_temporal_pool=False,
        ),
        bbox_head=dict(
            type='mmdet.BBoxHeadAVA',
            background_class=True,
            in_channels=2 * 64,  # of both maps
            num_classes={{_base_.model.head.num_classes}},
            multilabel=True,
            dropout_ratio=0.5,
        ),
        train_cfg=dict(
            assigner=dict(
                type='mmdet.MaxIoUAssignerAVA',
                pos_iou_thr=0.9,
                neg_iou_thr=0.9,
                min_pos_iou=0.9,
                iou_calculator=dict(type='mmdet.BboxOverlaps2D'),
            ),
            sampler=dict(
                type='mmdet.RandomSampler',
                num=32,
                pos_fraction=1,
                neg_pos_ub=-1,
                add_gt_as_proposals=True,
            ),
            pos_weight=1.0,
        ),
    ),
)
