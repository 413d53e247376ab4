# Clips of the toy dataset of tools/make_toy_dataset.py, with its tubes: one for each stretch
# of an action of a person.
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

tubes = dict(
    type='TubeClipDataset',
    ann_file=ann_file,
    data_root=data_root,
    data_prefix=dict(img='videos'),
    # Half of the frames of a clip, 15 of the video, are in the next one too.
    frame_stride=8,
    all_frames=True,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(pipeline=train_pipeline, **tubes),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(pipeline=test_pipeline, test_mode=True, **tubes),
)
test_dataloader = val_dataloader

truth = dict(ann_file=ann_file, data_root=data_root)
val_evaluator = [
    # Tubelets of clips that overlap say most boxes twice.
    dict(type='TubeFrameMAPMetric', nms='act', **truth),
    # Actions last a second or more, and a person does one after the other: a tube ends
    # where its action gets unlikely.
    dict(
        type='VideoMAPMetric',
        linking=dict(base='act', min_length=5),
        score_thr=0.3,
        **truth,
    ),
]
test_evaluator = val_evaluator
del tubes, truth
