# Who will do what half a second behind the clip's last frame.
_base_ = './stmixer_tiny-denoising_toy.py'

pipeline = _base_.train_pipeline
pipeline[1].update(ahead_s=0.5)
train_dataloader = dict(dataset=dict(pipeline=pipeline))
val_dataloader = dict(dataset=dict(pipeline=pipeline))
test_dataloader = val_dataloader
