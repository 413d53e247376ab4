# Tubelets of 32 frames. The recipe is that of keyframes, not STMixer-T's.
_base_ = [
    './stmixer_slowfast-r50_8xb2-8x8x1-12e_jhmdb-rgb.py',
    '../_base_/models/tubelets.py',
    '../_base_/datasets/tubelets_rgb_32x1x1.py',
]
custom_imports = dict(imports=['stmixer_mm.projects.tubelets'])

model = dict(decoder=_base_.tubelet_decoder, head=_base_.tubelet_head)
train_pipeline = _base_.train_clips.pipeline
test_pipeline = _base_.test_clips.pipeline
train_dataloader = dict(dataset=_base_.train_clips)
val_dataloader = test_dataloader = dict(dataset=_base_.test_clips)
frame_map, video_map = _base_.val_evaluator
# Clips that overlap yield most boxes twice.
val_evaluator = test_evaluator = [dict(frame_map, nms='act'), video_map]
