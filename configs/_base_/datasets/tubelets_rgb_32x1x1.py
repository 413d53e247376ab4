# Pipelines that make clips with persons in every frame of a dataset of tubes:
#   _base_ = ['….py', '../_base_/models/tubelets.py', this]
#   train_dataloader = dict(
#       dataset=dict(type='TubeClipDataset', pipeline=_base_.clip_train_pipeline)
#   )
# Every frame, as boxes are wanted in every frame. This package's choice: no settings of
# STMixer-T are public.
clip_train_pipeline = [
    dict(type='SampleKeyframeClip', clip_len=32, frame_interval=1, allow_short=True),
    dict(type='LocateTubelets'),
    dict(type='DecodeFrameFiles'),
    dict(type='RandomShortSideResize', short_range=(256, 320), max_long=1333),
    dict(type='mmaction.Flip', flip_ratio=0.5),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='PackTubelets'),
]
clip_test_pipeline = [
    dict(type='SampleKeyframeClip', clip_len=32, frame_interval=1, allow_short=True),
    dict(type='LocateTubelets'),
    dict(type='DecodeFrameFiles'),
    dict(type='mmaction.Resize', scale=(-1, 256)),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='PackTubelets'),
]
