# stmixer-n whose actions are read from maps: linear in what EfficientNet-Lite0 sees of
# each frame and of its difference from the frame before, as few videos are soon memorised.
# Configs import the projects streaming, denoising and action_maps.
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
        with_differences=True,
        norm_eval=True,
        # Half the time of a step: maps are large there, and few videos teach them little.
        frozen=['layers.0', 'layers.1', 'layers.2'],
    ),
    neck=dict(
        type='ActionMaps',
        in_channels=[24, 40, 112, 192],
        num_actions=None,  # as many as the label map has
        map_channels=[48, 80, 224, 384],
        num_parts=3,
        dropout=0.3,
    ),
    decoder=dict(
        type='ActionMapDecoder', num_frames=4, num_queries=12, out_multiplier=1
    ),
    denoising=dict(
        type='DenoisingQueries', num_groups=2, box_noise=0.4, label_noise=0.2
    ),
    head=dict(fallback_topk=0, score_thr=0.0, score_mode='product'),
)
custom_hooks = [dict(type='LeanConvolutionsHook')]
