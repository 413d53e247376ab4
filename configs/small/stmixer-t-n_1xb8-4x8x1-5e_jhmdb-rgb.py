# stmixer-n of tubelets for JHMDB: a box in each of the clip's four frames.
_base_ = [
    './stmixer-n_1xb8-4x8x1-5e_jhmdb-rgb.py',
    '../_base_/models/tubelets.py',
]
custom_imports = dict(
    imports=[*_base_.custom_imports.imports, 'stmixer_mm.projects.tubelets']
)

model = dict(
    decoder=dict(_base_.tubelet_decoder, num_queries=12),
    denoising=dict(type='DenoisingTubelets'),
    head=_base_.tubelet_head,
)
# CropEmptyPart and FilterBoxes know the keyframe's boxes alone.
sample, decode, _, crop, resize, _, flip, jitter, form, _ = _base_.train_pipeline
locate, pack = dict(type='LocateTubelets'), dict(type='PackTubelets')
train_pipeline = [sample, locate, decode, crop, resize, flip, jitter, form, pack]
sample, decode, resize, form, _ = _base_.test_pipeline
test_pipeline = [sample, locate, decode, resize, form, pack]
clips = dict(type='TubeClipDataset')
train_dataloader = dict(
    dataset=dict(clips, bystanders_file=None, pipeline=train_pipeline)
)
val_dataloader = dict(dataset=dict(clips, pipeline=test_pipeline))
test_dataloader = val_dataloader
frame_map, video_map = _base_.val_evaluator
# Each frame is in several clips.
val_evaluator = test_evaluator = [dict(frame_map, nms='act'), video_map]
