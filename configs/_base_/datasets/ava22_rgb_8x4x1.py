# For the small models: 8 frames of 224 pixels.
_base_ = './ava22_rgb_4x16x1.py'

train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[0].update(clip_len=8, frame_interval=4)
train_pipeline[2].update(short_range=(192, 256))
test_pipeline[0].update(clip_len=8, frame_interval=4)
test_pipeline[2].update(scale=(-1, 224))

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
