# Clips of the toy dataset of tools/make_toy_dataset.py: they learn from its tracks, in which
# a person does one thing after the other, and are scored on its tubes, one for each stretch
# of an action.
data_root = 'data/toy'
files = dict(data_root=data_root, data_prefix=dict(img='videos'))

# No flip: it would turn walking left into walking right.
train_pipeline = [
    # Frames in RAM, so that decoding does not compete with training for the CPU.
    dict(type='OpenVideo', keep_frames=True),
    # Tracks have a box every third frame, too.
    dict(type='SampleKeyframeClip', clip_len=4, frame_interval=3),
    dict(type='LocateTubelets', frame_actions=True),
    dict(type='DecodeFrames'),
    dict(type='mmaction.Resize', scale=(-1, 96)),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='PackTubelets'),
]
test_pipeline = train_pipeline

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
        ann_file='tubes.pkl',
        # Half of the 10 frames that a clip covers are in the next one too.
        frame_stride=5,
        all_frames=True,
        test_mode=True,
        pipeline=test_pipeline,
        **files,
    ),
)
test_dataloader = val_dataloader

truth = dict(ann_file='tubes.pkl', data_root=data_root)
val_evaluator = [
    # Tubelets of clips that overlap yield most boxes twice.
    dict(type='TubeFrameMAPMetric', nms='moc', **truth),
    # Actions last a second or more; the first and the last of a video half a second.
    dict(
        type='VideoMAPMetric',
        linking=dict(base='moc', end_after=5, min_length=5, acting=0.45),
        **truth,
    ),
]
test_evaluator = val_evaluator
