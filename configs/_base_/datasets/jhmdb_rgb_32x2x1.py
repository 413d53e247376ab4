# JHMDB51-21 as tools/data/jhmdb/README.md lays it out: extracted frames.
_base_ = './tubes_rgb_32x2x1.py'

data_root = 'data/jhmdb'
ann_file = f'{data_root}/JHMDB-GT.pkl'

files = dict(
    ann_file=ann_file,
    data_prefix=dict(img=f'{data_root}/Frames'),
    filename_tmpl='{:05}.png',
)
train_dataloader = dict(dataset=dict(frame_stride=2, **files))
val_dataloader = dict(dataset=files)
test_dataloader = val_dataloader

val_evaluator = [dict(metric, ann_file=ann_file) for metric in _base_.val_evaluator]
test_evaluator = val_evaluator
