# stmixer-n for JHMDB: EfficientNet-Lite0 on each frame, whose stages of strides 8 to 32
# see something of the frame before.
_base_ = [
    '../_base_/models/stmixer-n.py',
    '../_base_/datasets/jhmdb_rgb_4x8x1.py',
    '../_base_/schedules/adamw_few_epochs.py',
    '../_base_/default_runtime.py',
]
custom_imports = dict(
    imports=['stmixer_mm.projects.streaming', 'stmixer_mm.projects.denoising']
)

model = dict(
    data_preprocessor=dict(mean=[127, 127, 127], std=[128, 128, 128]),
    backbone=dict(
        backbone=dict(
            _delete_=True,
            type='EfficientNetLite0',
            checkpoint='data/efficientnet-lite0.pth',
        ),
        stages=[
            ['layers.0', 'layers.1', 'layers.2'],
            ['layers.3'],
            ['layers.4'],
            ['layers.5.0', 'layers.5.1'],
        ],
        shifts=[2, 3],
        norm_eval=True,
        # Half the time of a step: maps are large there, and few videos teach them little.
        frozen=['layers.0', 'layers.1', 'layers.2'],
    ),
    neck=dict(in_channels=[24, 40, 112, 192]),
    decoder=dict(num_frames=4, num_queries=12, out_multiplier=1),
    denoising=dict(
        type='DenoisingQueries', num_groups=2, box_noise=0.4, label_noise=0.2
    ),
    head=dict(num_classes=22, fallback_topk=0, score_thr=0.0, score_mode='product'),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.2))))
train_cfg = dict(max_epochs=5, val_interval=5)
custom_hooks = [dict(type='LeanConvolutionsHook')]
randomness = dict(seed=0)
