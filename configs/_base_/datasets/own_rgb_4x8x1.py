# The same in larger frames and longer clips, as the model in this package was trained on.
_base_ = './own_rgb_4x4x1.py'

clip = dict(type='SampleKeyframeClip', clip_len=4, frame_interval=8, allow_short=True)
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[1] = test_pipeline[1] = clip
train_pipeline[3].update(short_range=(176, 224), max_long=384)
test_pipeline[3].update(scale=(-1, 192))

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
