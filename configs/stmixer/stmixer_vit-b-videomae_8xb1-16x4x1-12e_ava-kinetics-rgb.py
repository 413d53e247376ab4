_base_ = [
    '../_base_/models/stmixer_vit-b.py',
    '../_base_/datasets/ava_kinetics_rgb_16x4x1.py',
    '../_base_/schedules/adamw_vit_12e.py',
    '../_base_/default_runtime.py',
]

# Kinetics-400 weights of the host's zoo for the backbone.
url = (
    'https://download.openmmlab.com/mmaction/v1.0/recognition/videomae/'
    'vit-base-p16_videomae-k400-pre_16x4x1_kinetics-400_20221013-860a3cd3.pth'
)
model = dict(init_cfg=dict(type='Pretrained', checkpoint=url))
train_dataloader = dict(batch_size=1)
