# The toy dataset of tools/make_toy_dataset.py: drawn people, 8 actions, 15 frames per
# second, read from the video files.
_base_ = './own_rgb_4x4x1.py'

data_root = 'data/toy'

# No flip: it would turn walking left into walking right.
train_pipeline = [
    # 1.5 GB of frames, so that decoding does not compete with training for the CPU.
    dict(type='OpenVideo', keep_frames=True),
    dict(type='SampleKeyframeClip', clip_len=4, frame_interval=3),
    dict(type='DecodeFrames'),
    dict(type='mmaction.Resize', scale=(-1, 96)),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    dict(type='mmaction.PackActionInputs'),
]
test_pipeline = train_pipeline

files = dict(data_root=data_root, empty_keyframes_file=None)
dataset = dict(pipeline=train_pipeline, **files)
train_dataloader = dict(num_workers=1, dataset=dataset)
val_dataloader = dict(batch_size=8, num_workers=1, dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = files
test_evaluator = files
