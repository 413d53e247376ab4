# Videos with tubes, as extracted frames. They are often shorter than the clips, whose
# outer frames then repeat. Children name the files.
split = 1

train_pipeline = [
    dict(type='SampleKeyframeClip', clip_len=32, frame_interval=2, allow_short=True),
    dict(type='DecodeFrameFiles'),
    dict(type='RandomShortSideResize', short_range=(256, 320), max_long=1333),
    dict(type='mmaction.Flip', flip_ratio=0.5),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='mmaction.PackActionInputs'),
]
test_pipeline = [
    dict(type='SampleKeyframeClip', clip_len=32, frame_interval=2, allow_short=True),
    dict(type='DecodeFrameFiles'),
    dict(type='mmaction.Resize', scale=(-1, 256)),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='mmaction.PackActionInputs'),
]

tubes = dict(type='TubeDataset', split=split, use_frames=True)
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    # Neighbours show nearly the same. This package's choice, not the papers'.
    dataset=dict(frame_stride=8, pipeline=train_pipeline, **tubes),
)
# Every frame of the test videos, also those without a box: detections there count, and
# tubes are linked through them.
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(all_frames=True, pipeline=test_pipeline, test_mode=True, **tubes),
)
test_dataloader = val_dataloader

val_evaluator = [
    dict(type='TubeFrameMAPMetric', split=split),
    dict(type='VideoMAPMetric', split=split, iou_thrs=(0.5, 0.2, 0.75, '0.5:0.95')),
]
test_evaluator = val_evaluator
