_base_ = './ava21_rgb_4x16x1.py'

train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[0].update(clip_len=32, frame_interval=2)
test_pipeline[0].update(clip_len=32, frame_interval=2)

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
