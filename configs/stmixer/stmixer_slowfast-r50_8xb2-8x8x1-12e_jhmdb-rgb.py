# The recipe of AVA: backbone, clip and schedule of the paper for this dataset are not
# confirmed.
_base_ = [
    '../_base_/models/stmixer_slowfast-r50.py',
    '../_base_/datasets/jhmdb_rgb_32x2x1.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/default_runtime.py',
]

# Kinetics-400 weights of the host's zoo for the backbone.
url = (
    'https://download.openmmlab.com/mmaction/v1.0/recognition/slowfast/'
    'slowfast_r50_8xb8-8x8x1-steplr-256e_kinetics400-rgb/'
    'slowfast_r50_8xb8-8x8x1-steplr-256e_kinetics400-rgb_20220818-b62a501f.pth'
)
model = dict(
    init_cfg=dict(type='Pretrained', checkpoint=url),
    # Frames without a person are evaluated too.
    head=dict(num_classes=22, fallback_topk=0),
)
# Once: every frame of the test videos takes long.
train_cfg = dict(val_interval=12)
