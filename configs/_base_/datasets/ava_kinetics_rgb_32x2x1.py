# AVA-Kinetics: frames of AVA v2.2, and clips of Kinetics-700 as they are with the
# annotation that tools/data/ava_kinetics/convert.py writes for them.
_base_ = './ava22_rgb_32x2x1.py'

kinetics_root = 'data/kinetics700'
kinetics_ann_root = 'data/ava_kinetics/annotations'
kinetics_val_ann_file = f'{kinetics_ann_root}/kinetics_val.csv'

# Each clip of Kinetics has its own frame rate, and some are cut short.
load = [
    dict(type='OpenVideo'),
    dict(type='SampleKeyframeClip', clip_len=32, frame_interval=2, allow_short=True),
    dict(type='DecodeFrames'),
]
kinetics_train_pipeline = load + _base_.train_pipeline[2:]
kinetics_test_pipeline = load + _base_.test_pipeline[2:]

kinetics = dict(type='KeyframeDataset', label_file=_base_.label_file)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            _base_.train_dataloader.dataset,
            dict(
                ann_file=f'{kinetics_ann_root}/kinetics_train.csv',
                data_prefix=dict(img=f'{kinetics_root}/videos_train'),
                pipeline=kinetics_train_pipeline,
                **kinetics,
            ),
        ],
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            _base_.val_dataloader.dataset,
            dict(
                ann_file=kinetics_val_ann_file,
                data_prefix=dict(img=f'{kinetics_root}/videos_val'),
                pipeline=kinetics_test_pipeline,
                test_mode=True,
                **kinetics,
            ),
        ],
    )
)
test_dataloader = val_dataloader

metric = dict(
    type='FrameMAPMetric',
    label_file=_base_.label_file,
    exclude_file=_base_.val_exclude_file,
)
# Both parts together, then each on its own.
val_evaluator = [
    dict(ann_file=[_base_.val_ann_file, kinetics_val_ann_file], **metric),
    dict(ann_file=_base_.val_ann_file, own_videos=True, prefix='mAP_ava', **metric),
    dict(
        ann_file=kinetics_val_ann_file,
        own_videos=True,
        prefix='mAP_kinetics',
        **metric,
    ),
]
test_evaluator = val_evaluator
