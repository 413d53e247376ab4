_base_ = './stmixer_vit-b-videomae_8xb1-16x4x1-12e_ava22-rgb.py'

# Kinetics-400 weights of the host's zoo for the backbone.
url = (
    'https://download.openmmlab.com/mmaction/v1.0/recognition/videomaev2/'
    'vit-base-p16_videomaev2-vit-g-dist-k710-pre_16x4x1_kinetics-400/'
    'vit-base-p16_videomaev2-vit-g-dist-k710-pre_16x4x1_kinetics-400'
    '_20230510-3e7f93b2.pth'
)
model = dict(
    init_cfg=dict(checkpoint=url), head=dict(loss_action=dict(loss_weight=0.6))
)
