# What makes a dataset of tubes one of clips with persons in every frame:
#   _base_ = ['….py', '../_base_/models/tubelets.py', this]
#   train_dataloader = dict(dataset=_base_.train_clips)
#   val_dataloader = dict(dataset=_base_.test_clips)
# Every frame, as boxes are wanted in every frame. This package's choice: no settings of
# STMixer-T are public.
load = [
    dict(type='SampleKeyframeClip', clip_len=32, frame_interval=1, allow_short=True),
    dict(type='LocateTubelets'),
    dict(type='DecodeFrameFiles'),
]
pack = [
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='PackTubelets'),
]
clip_train_pipeline = [
    *load,
    dict(type='RandomShortSideResize', short_range=(256, 320), max_long=1333),
    dict(type='mmaction.Flip', flip_ratio=0.5),
    *pack,
]
clip_test_pipeline = [*load, dict(type='mmaction.Resize', scale=(-1, 256)), *pack]
train_clips = dict(type='TubeClipDataset', pipeline=clip_train_pipeline)
# Each frame is in two clips, so that they can be linked.
test_clips = dict(type='TubeClipDataset', frame_stride=16, pipeline=clip_test_pipeline)
del load, pack
