# UCF101-24 as tools/data/ucf101_24/README.md lays it out: extracted frames,
# the corrected annotation in the form of the action tubelet detector.
_base_ = './tubes_rgb_32x2x1.py'

data_root = 'data/ucf101_24'
ann_file = f'{data_root}/UCF101v2-GT.pkl'

files = dict(
    ann_file=ann_file,
    data_prefix=dict(img=f'{data_root}/rgb-images'),
    filename_tmpl='{:05}.jpg',
)
train_dataloader = dict(dataset=files)
val_dataloader = dict(dataset=files)
test_dataloader = val_dataloader

val_evaluator = [dict(metric, ann_file=ann_file) for metric in _base_.val_evaluator]
test_evaluator = val_evaluator
