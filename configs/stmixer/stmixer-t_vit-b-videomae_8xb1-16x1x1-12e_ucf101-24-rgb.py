# Tubelets of 16 frames. The recipe is that of keyframes, not STMixer-T's.
_base_ = [
    '../_base_/models/stmixer_vit-b.py',
    '../_base_/models/tubelets.py',
    '../_base_/datasets/ucf101_24_rgb_32x2x1.py',
    '../_base_/datasets/tubelets_rgb_16x1x1.py',
    '../_base_/schedules/adamw_vit_12e.py',
    '../_base_/default_runtime.py',
]
custom_imports = dict(imports=['stmixer_mm.projects.tubelets'])

model = dict(
    decoder=_base_.tubelet_decoder, head=dict(num_classes=25, **_base_.tubelet_head)
)
train_pipeline = _base_.train_clips.pipeline
test_pipeline = _base_.test_clips.pipeline
train_dataloader = dict(batch_size=1, dataset=_base_.train_clips)
val_dataloader = test_dataloader = dict(dataset=_base_.test_clips)
frame_map, video_map = _base_.val_evaluator
# Clips that overlap yield most boxes twice.
val_evaluator = test_evaluator = [dict(frame_map, nms='act'), video_map]
# Once: all test videos take long.
train_cfg = dict(val_interval=12)
