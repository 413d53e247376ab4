_base_ = [
    '../_base_/models/stmixer_csn-r152.py',
    '../_base_/datasets/ava22_rgb_32x2x1.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/default_runtime.py',
]

# IG-65M and Kinetics-400 weights of the host's zoo for the backbone.
url = (
    'https://download.openmmlab.com/mmaction/v1.0/recognition/csn/'
    'ircsn_ig65m-pretrained-r152-bnfrozen_8xb12-32x2x1-58e_kinetics400-rgb/'
    'ircsn_ig65m-pretrained-r152-bnfrozen_8xb12-32x2x1-58e_kinetics400-rgb'
    '_20220811-7d1dacde.pth'
)
model = dict(init_cfg=dict(type='Pretrained', checkpoint=url))
