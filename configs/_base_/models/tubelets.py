# What makes an STMixer of keyframes one of tubelets, for any backbone and neck:
#   _base_ = ['stmixer_….py', 'tubelets.py']
#   custom_imports = dict(imports=['stmixer_mm.projects.tubelets'])
#   model = dict(decoder=_base_.tubelet_decoder, head=_base_.tubelet_head)
# The design is ours, made from the abstract of STMixer-T.
tubelet_decoder = dict(type='STMixerTubeletDecoder', num_queries=25)
tubelet_head = dict(
    type='STMixerTubeletHead',
    assigner=dict(
        type='mmdet.HungarianAssigner',
        match_costs=[
            dict(
                type='TubeletCost',
                # Those of keyframes.
                person_costs=[dict(type='mmdet.ClassificationCost', weight=2.0)],
                box_costs=[
                    dict(type='mmdet.BBoxL1Cost', weight=2.0, box_format='xyxy'),
                    dict(type='mmdet.IoUCost', iou_mode='giou', weight=2.0),
                ],
            )
        ],
    ),
    fallback_topk=0,
)
