# The same in the size of AVA's frames and clips, for models with pretrained backbones.
_base_ = './own_rgb_4x4x1.py'

train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[1].update(frame_interval=16)
train_pipeline[3].update(short_range=(256, 320), max_long=1333)
test_pipeline[1].update(frame_interval=16)
test_pipeline[3].update(scale=(-1, 256))

train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
