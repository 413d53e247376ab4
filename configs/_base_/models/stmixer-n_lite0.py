# stmixer-n on EfficientNet-Lite0, whose stages of strides 8 to 32 see something of the
# frame before, in the size that few videos can train.
# Configs import the projects streaming and denoising.
_base_ = './stmixer-n.py'

model = dict(
    data_preprocessor=dict(mean=[127, 127, 127], std=[128, 128, 128]),
    backbone=dict(
        backbone=dict(_delete_=True, type='EfficientNetLite0'),
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
    head=dict(fallback_topk=0, score_thr=0.0, score_mode='product'),
)
custom_hooks = [dict(type='LeanConvolutionsHook')]
