_base_ = [
    '../_base_/models/stmixer_slowonly-r50.py',
    '../_base_/datasets/ava22_rgb_4x16x1.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/default_runtime.py',
]

# Kinetics-400 weights of the host's zoo for the backbone.
url = (
    'https://download.openmmlab.com/mmaction/v1.0/recognition/slowonly/'
    'slowonly_imagenet-pretrained-r50_8xb16-4x16x1-steplr-150e_kinetics400-rgb/'
    'slowonly_imagenet-pretrained-r50_8xb16-4x16x1-steplr-150e_kinetics400-rgb'
    '_20220901-e7b65fad.pth'
)
model = dict(init_cfg=dict(type='Pretrained', checkpoint=url))
