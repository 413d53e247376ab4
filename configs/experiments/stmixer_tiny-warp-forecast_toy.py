# The same with feature maps of the next three frames, 0.6 s, warped from the last two.
_base_ = './stmixer_tiny-ahead_toy.py'
custom_imports = dict(
    imports=['stmixer_mm.projects.denoising', 'stmixer_mm.projects.forecast']
)

forecast = dict(type='WarpForecast', in_channels=[64, 64], num_ahead=3, clip_len=4)
model = dict(neck=[_base_.model.neck, forecast], decoder=dict(num_frames=7))
# Only in training: the frames whose feature maps it learns to foretell.
pipeline = _base_.train_dataloader.dataset.pipeline
pipeline[1].update(type='SampleClipAndFuture', num_future=3)
train_dataloader = dict(dataset=dict(pipeline=pipeline))
