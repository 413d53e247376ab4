# Small people in large frames, for `stmixer detect --tiles`: toy videos made with
# `--story crowd --size 768x576`.
_base_ = './stmixer_tiny-denoising_toy.py'
custom_imports = dict(
    imports=['stmixer_mm.projects.denoising', 'stmixer_mm.projects.tiles']
)

model = dict(decoder=dict(num_queries=16))
files = dict(data_root='data/crowd')
sampling, decoding = _base_.train_pipeline[1:3]
rest = [dict(type='mmaction.Resize', scale=(-1, 128)), *_base_.train_pipeline[4:]]
test_pipeline = [dict(type='OpenVideo'), sampling, decoding, *rest]
train_pipeline = [*test_pipeline[:3], dict(type='RandomTile'), *rest]
train_cfg = dict(max_epochs=8, val_interval=8)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **files))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **files))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = files
