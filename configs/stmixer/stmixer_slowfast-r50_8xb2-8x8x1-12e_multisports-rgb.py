# The recipe of AVA: backbone, clip and schedule of the paper for this dataset are not
# confirmed.
_base_ = [
    '../_base_/models/stmixer_slowfast-r50.py',
    '../_base_/datasets/multisports_rgb_32x2x1.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/default_runtime.py',
]

# Frames without a person are evaluated too.
model = dict(head=dict(num_classes=67, fallback_topk=0))
# Once: every frame of the test videos takes long.
train_cfg = dict(val_interval=12)
