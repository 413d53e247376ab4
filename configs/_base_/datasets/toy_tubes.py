# Clips of the toy dataset of tools/make_toy_dataset.py. Trained on tracks, persons with all
# they do, at five keyframes a second; scored on tubes, one for each stretch of an action.
data_root = 'data/toy'
ann_file = 'tubes.pkl'

# No flip: it would turn walking left into walking right.
train_pipeline = [
    # Half a GB of frames, so that decoding does not compete with training for the CPU.
    dict(type='OpenVideo', keep_frames=True),
    dict(type='SampleKeyframeClip', clip_len=8, frame_interval=2),
    dict(type='LocateTubelets'),
    dict(type='DecodeFrames'),
    dict(type='mmaction.Resize', scale=(-1, 96)),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='PackTubelets'),
]
test_pipeline = train_pipeline

files = dict(data_root=data_root, data_prefix=dict(img='videos'))
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='TrackClipDataset',
        ann_file='train_tracks.csv',
        empty_keyframes_file='train_tracks_empty.csv',
        label_file='action_list.pbtxt',
        clip_stride=3,
        pipeline=train_pipeline,
        **files,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='TubeClipDataset',
        ann_file=ann_file,
        # Half of the frames of a clip, 15 of the video, are in the next one too.
        frame_stride=8,
        all_frames=True,
        test_mode=True,
        pipeline=test_pipeline,
        **files,
    ),
)
test_dataloader = val_dataloader

truth = dict(ann_file=ann_file, data_root=data_root)
val_evaluator = [
    # Tubelets of clips that overlap say most boxes twice.
    dict(type='TubeFrameMAPMetric', nms='act', **truth),
    dict(type='VideoMAPMetric', **truth),
]
test_evaluator = val_evaluator
del files, truth
