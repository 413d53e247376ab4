# Tubelets of 32 frames. The recipe of keyframes: of STMixer-T's nothing is public.
_base_ = [
    './stmixer_slowfast-r50_8xb2-8x8x1-12e_multisports-rgb.py',
    '../_base_/models/tubelets.py',
    '../_base_/datasets/tubelets_rgb_32x1x1.py',
]

model = dict(decoder=_base_.tubelet_decoder, head=_base_.tubelet_head)
# Of video files.
train_pipeline, test_pipeline = _base_.clip_train_pipeline, _base_.clip_test_pipeline
for pipeline in (train_pipeline, test_pipeline):
    pipeline[2:3] = [dict(type='DecodeFrames')]
    pipeline[:0] = [dict(type='OpenVideo')]
train_dataloader = dict(dataset=dict(_base_.train_clips, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(_base_.test_clips, pipeline=test_pipeline))
test_dataloader = val_dataloader
frame_map, video_map = _base_.val_evaluator
frame_map.update(nms='act')  # overlapping clips say most boxes twice
val_evaluator = [frame_map, video_map]
test_evaluator = val_evaluator
del frame_map, pipeline, video_map
