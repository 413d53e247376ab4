"""Made-up checkpoints of the release, of small sizes."""

import torch

from stmixer_mm.projects.release.names import released_name
from stmixer_mm.registry import MODELS

SIZES = dict(
    embed_dims=24, num_queries=3, num_stages=2, num_heads=4, feedforward_channels=20,
    num_groups=3, num_points=5, num_frames=2, out_multiplier=2, num_classes=6,
)  # fmt: skip
SLOWONLY = dict(type='mmaction.ResNet3dSlowOnly', depth=50, out_indices=(0, 1, 2, 3))
SLOWFAST = dict(
    type='ResNet3dSlowFastPyramid', fusion_kernel=5, non_local_blocks=[1, 3]
)
VIT = dict(
    type='mmaction.VisionTransformer', embed_dims=64, depth=2, num_heads=1,
    num_frames=4, use_mean_pooling=False, return_feat_map=True,
)  # fmt: skip
BACKBONES = {
    'slowonly': (SLOWONLY, [256, 512, 1024, 2048]),
    'slowfast': (SLOWFAST, [288, 576, 1152, 2304]),
    'vit': (VIT, None),
}


def make_parts(backbone, sizes):
    config, in_channels = BACKBONES[backbone]
    width = sizes['embed_dims']
    neck = dict(type='ViTPyramid3D', in_channels=64, out_channels=width)
    if in_channels:
        neck = dict(
            type='ChannelProjection3D', in_channels=in_channels, out_channels=width
        )
    return dict(
        backbone=config, neck=neck, decoder=dict(type='STMixerDecoder', **sizes)
    )


def released_state_dict(backbone, **sizes):
    """State dict in the form of the release, for a model of ours."""
    state = {'stm_head.criterion.empty_weight': torch.tensor([1, 0.1])}
    for part, config in make_parts(backbone, {**SIZES, **sizes}).items():
        for name, value in MODELS.build(config).state_dict().items():
            if name != 'pos_embed':
                state[released_name(f'{part}.{name}')] = value
    return state
