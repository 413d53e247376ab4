# Tubelets of 32 frames. The recipe of keyframes: of STMixer-T's nothing is public.
_base_ = [
    './stmixer_slowfast-r50_8xb2-8x8x1-12e_multisports-rgb.py',
    '../_base_/models/tubelets.py',
    '../_base_/datasets/tubelets_rgb_32x1x1.py',
]

model = dict(decoder=_base_.tubelet_decoder, head=_base_.tubelet_head)
load = [
    dict(type='OpenVideo'),
    *_base_.clip_train_pipeline[:2],
    dict(type='DecodeFrames'),
]
train_pipeline = load + _base_.clip_train_pipeline[3:]
test_pipeline = load + _base_.clip_test_pipeline[3:]
clips = dict(type='TubeClipDataset')
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **clips))
# Each frame is in two clips, so that they can be linked.
clips.update(frame_stride=16, pipeline=test_pipeline)
val_dataloader = dict(dataset=clips)
test_dataloader = val_dataloader
frame_map, video_map = _base_.val_evaluator
frame_map.update(nms='act')  # overlapping clips say most boxes twice
val_evaluator = [frame_map, video_map]
test_evaluator = val_evaluator
del clips, load, frame_map, video_map
