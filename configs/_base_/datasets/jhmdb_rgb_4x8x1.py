# JHMDB51-21 in small frames, which tools/data/jhmdb/extract_frames.py makes of the videos.
_base_ = './tubes_rgb_32x2x1.py'

data_root = 'data/jhmdb'
truth = dict(ann_file='JHMDB-GT.pkl', data_root=data_root)
clip = dict(type='SampleKeyframeClip', clip_len=4, frame_interval=8, allow_short=True)
train_pipeline = [
    clip,
    dict(type='DecodeFrameFiles'),
    dict(type='CropEmptyPart', prob=0.1),
    dict(
        type='mmaction.RandomResizedCrop',
        area_range=(0.5, 1.0),
        aspect_ratio_range=(1.0, 1.78),
    ),
    dict(type='mmaction.Resize', scale=(256, 192), keep_ratio=False),
    dict(type='FilterBoxes', min_size=4),
    dict(type='mmaction.Flip', flip_ratio=0.5),
    # The hue of mmaction's jitter does not run with numpy 2.
    dict(
        type='mmaction.ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3, hue=0
    ),
    *_base_.train_pipeline[-2:],
]
test_pipeline = _base_.test_pipeline
test_pipeline[0].update(clip)
test_pipeline[2].update(scale=(-1, 192))

files = dict(data_prefix=dict(img='frames_256x192'), **truth)
train_files = dict(
    frame_stride=4, bystanders_file='bystanders.csv', pipeline=train_pipeline, **files
)
loader = dict(batch_size=8, num_workers=1)
train_dataloader = dict(dataset=train_files, **loader)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **files), **loader)
test_dataloader = val_dataloader

val_evaluator = [dict(metric, **truth) for metric in _base_.val_evaluator]
test_evaluator = val_evaluator
