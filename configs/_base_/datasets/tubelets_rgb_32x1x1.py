# What a dataset of tubes yields to tubelets: clips with persons in every frame. Beside it
# in `_base_`:
#   train_dataloader = dict(dataset=_base_.train_clips)
#   val_dataloader = test_dataloader = dict(dataset=_base_.test_clips)
# Every frame, as boxes are wanted in every frame. This package's choice, not STMixer-T's.
clip = dict(type='SampleKeyframeClip', clip_len=32, frame_interval=1, allow_short=True)
train_clips = dict(
    type='TubeClipDataset',
    pipeline=[
        clip,
        dict(type='LocateTubelets'),
        dict(type='DecodeFrameFiles'),
        dict(type='RandomShortSideResize', short_range=(256, 320), max_long=1333),
        dict(type='mmaction.Flip', flip_ratio=0.5),
        dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
        dict(type='PackTubelets'),
    ],
)
# Each frame is in two clips, so that they can be linked.
test_clips = dict(
    type='TubeClipDataset',
    frame_stride=16,
    pipeline=[
        clip,
        dict(type='LocateTubelets'),
        dict(type='DecodeFrameFiles'),
        dict(type='mmaction.Resize', scale=(-1, 256)),
        dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
        dict(type='PackTubelets'),
    ],
)
