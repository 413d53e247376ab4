# For live use: clips end at their keyframe, so that nobody waits for what comes after it.
_base_ = './stmixer-n_1xb8-4x3x1_toy.py'

pipeline = _base_.train_pipeline
pipeline[1].update(ahead_s=0.0)
train_dataloader = dict(dataset=dict(pipeline=pipeline))
val_dataloader = dict(dataset=dict(pipeline=pipeline))
test_dataloader = val_dataloader
