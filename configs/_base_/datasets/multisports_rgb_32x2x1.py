# MultiSports as tools/data/multisports/README.md lays it out: video files, one split
# whose test videos are the validation set.
_base_ = './tubes_rgb_32x2x1.py'

data_root = 'data/multisports/trainval'
ann_file = f'{data_root}/multisports_GT.pkl'

load = [
    dict(type='OpenVideo'),
    dict(type='SampleKeyframeClip', clip_len=32, frame_interval=2, allow_short=True),
    dict(type='DecodeFrames'),
]
train_pipeline = load + _base_.train_pipeline[2:]
test_pipeline = load + _base_.test_pipeline[2:]

files = dict(ann_file=ann_file, data_prefix=dict(img=data_root), use_frames=False)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **files))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **files))
test_dataloader = val_dataloader

# As its own evaluator counts; it leaves out some of the labels.
counting = dict(
    ann_file=ann_file, protocol='multisports', excluded_labels='multisports'
)
frame_map, video_map = _base_.val_evaluator
val_evaluator = [
    dict(frame_map, **counting),
    dict(video_map, linking='multisports', **counting),
]
test_evaluator = val_evaluator
