# Tubelets of 16 frames. The recipe of keyframes: of STMixer-T's nothing is public.
_base_ = [
    '../_base_/models/stmixer_vit-b.py',
    '../_base_/models/tubelets.py',
    '../_base_/datasets/ucf101_24_rgb_32x2x1.py',
    '../_base_/datasets/tubelets_rgb_16x1x1.py',
    '../_base_/schedules/adamw_vit_12e.py',
    '../_base_/default_runtime.py',
]

# Kinetics-400 weights of the host's zoo for the backbone.
url = (
    'https://download.openmmlab.com/mmaction/v1.0/recognition/videomae/'
    'vit-base-p16_videomae-k400-pre_16x4x1_kinetics-400_20221013-860a3cd3.pth'
)
model = dict(
    init_cfg=dict(type='Pretrained', checkpoint=url),
    decoder=_base_.tubelet_decoder,
    head=dict(num_classes=25, **_base_.tubelet_head),
)
train_pipeline, test_pipeline = _base_.clip_train_pipeline, _base_.clip_test_pipeline
train_dataloader = dict(batch_size=1, dataset=_base_.train_clips)
val_dataloader = dict(dataset=_base_.test_clips)
test_dataloader = val_dataloader
frame_map, video_map = _base_.val_evaluator
frame_map.update(nms='act')  # overlapping clips say most boxes twice
val_evaluator = [frame_map, video_map]
test_evaluator = val_evaluator
del frame_map, video_map
# Once: all test videos take long.
train_cfg = dict(val_interval=12)
