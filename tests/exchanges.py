"""Exchanges of one part in the toy configs; those of several parts: configs/experiments."""

from copy import deepcopy

from every_config import CONFIGS
from mmengine.config import Config

KEYFRAMES, TUBELETS = 'stmixer', 'stmixer-t'


def framewise(neck, **settings):
    """A neck of mmdet on each frame."""
    return dict(type='FramewiseNeck', neck=dict(type=f'mmdet.{neck}', **settings))


def backbone(kind, in_channels, **settings):
    """A backbone, and the neck for its widths."""
    return dict(
        backbone=dict(_delete_=True, type=kind, **settings),
        neck=dict(in_channels=in_channels),
    )


def tapped(kind, layers, in_channels, time_in_batch=False, **settings):
    taps = dict(taps=layers, time_in_batch=time_in_batch)
    settings = dict(type=f'mmaction.{kind}', **settings)
    return backbone('TappedBackbone', in_channels, backbone=settings, **taps)


def projection(in_channels):
    return dict(type='ChannelProjection3D', in_channels=in_channels, out_channels=64)


HALF_TIME = dict(decoder=dict(num_frames=2))
LEVELS = dict(in_channels=[16, 64], out_channels=64)
TWO_STAGES = dict(depth=18, num_stages=2, dilations=(1, 1))
WITH_TIME = TWO_STAGES | dict(base_channels=16, inflate=(1, 1), out_indices=(0, 1))
COSTS = ('FocalLoss', 'BBoxL1', 'IoU')
EXCHANGES = {
    # Backbones. Those that stride time need it in the decoder, or a neck that undoes it.
    'i3d': HALF_TIME
    | backbone(
        'mmaction.ResNet3d',
        [16, 32],
        conv1_kernel=(5, 7, 7),
        **WITH_TIME | dict(spatial_strides=(1, 2), temporal_strides=(1, 1)),
    ),
    'c2d': tapped(
        'C2D',
        ['layer1', 'layer2'],
        [64, 128],
        time_in_batch=True,
        **TWO_STAGES | dict(strides=(1, 2), out_indices=(1,)),
    ),
    'r2plus1d': tapped(
        'ResNet2Plus1d',
        ['layer1', 'layer2'],
        [16, 32],
        **WITH_TIME | dict(spatial_strides=(1, 2), temporal_strides=(1, 2)),
        conv_cfg=dict(type='Conv2plus1d'),
        pretrained2d=False,
    ),
    'csn': backbone(
        'mmaction.ResNet3dCSN',
        [32, 64, 128],
        **dict(depth=50, num_stages=3, stage_blocks=(1, 1, 1), base_channels=8),
        **dict(spatial_strides=(1, 2, 2), temporal_strides=(1, 2, 2)),
        **dict(dilations=(1, 1, 1), inflate=(1, 1, 1), out_indices=(0, 1, 2)),
        **dict(with_pool2=False, pretrained=None, pretrained2d=False),
    ),
    'swin3d': HALF_TIME
    | backbone(
        'mmaction.SwinTransformer3D',
        [24, 48, 96],
        arch=dict(embed_dims=24, depths=[2, 2, 2], num_heads=[1, 2, 4]),
        **dict(window_size=(2, 7, 7), out_indices=(0, 1, 2), pretrained2d=False),
    ),
    'mvit': HALF_TIME
    | backbone(
        'mmaction.MViT',
        [16, 32, 64],
        arch=dict(embed_dims=16, num_layers=3, num_heads=1, downscale_indices=[1, 2]),
        **dict(spatial_size=96, temporal_size=4, out_scales=[0, 1, 2]),
        output_cls_token=False,
    ),
    'uniformer': HALF_TIME
    | tapped(
        'UniFormer',
        ['blocks1', 'blocks2', 'blocks3', 'norm'],
        [16, 32, 64, 128],
        **dict(depth=[1] * 4, embed_dim=[16, 32, 64, 128], head_dim=16),
        pretrained2d=False,
    ),
    'pvt2d': backbone(
        'FramewiseBackbone',
        [16, 32, 80, 128],
        backbone=dict(type='mmdet.PyramidVisionTransformerV2', embed_dims=16)
        | dict(num_layers=[1] * 4),
    ),
    # Necks.
    'framewise-fpn-batchnorm-leaky': dict(
        neck=framewise(
            'FPN',
            **LEVELS,
            **dict(num_outs=4, add_extra_convs='on_output'),
            norm_cfg=dict(type='BN'),
            act_cfg=dict(type='LeakyReLU', negative_slope=0.1),
        )
        | dict(_delete_=True)
    ),
    'vit-pyramid-framewise-fpn': dict(
        neck=[
            dict(type='ViTPyramid3D', in_channels=64, out_channels=64),
            framewise('FPN', in_channels=[64] * 4, out_channels=64, num_outs=4),
        ]
    ),
    'framewise-bfp': dict(
        neck=[
            projection([16, 64]),
            framewise('BFP', in_channels=64, num_levels=2, refine_level=1),
        ]
    ),
    'framewise-nasfpn': dict(
        neck=framewise('NASFPN', **LEVELS, num_outs=5, stack_times=1)
        | dict(_delete_=True)
    ),
    'framewise-ssd': dict(
        neck=[
            framewise(
                'SSDNeck',
                **dict(in_channels=[16, 64], out_channels=[16, 64, 64]),
                **dict(level_strides=[2], level_paddings=[1]),
            ),
            projection([16, 64, 64]),
        ]
    ),
    # CARAFE's own kernel needs a GPU.
    'framewise-carafe': dict(
        neck=framewise(
            'FPN_CARAFE',
            **LEVELS,
            num_outs=2,
            upsample_cfg=dict(type='pixel_shuffle', upsample_kernel=3),
        )
        | dict(_delete_=True)
    ),
    # Losses and costs. CIoU with the default eps (square pixels) divides 0 by 0 at an
    # exactly right box; four times focal loss is about cross-entropy at the start.
    'ciou': dict(head=dict(loss_iou=dict(type='mmdet.CIoULoss', eps=0.1))),
    'smooth-l1': dict(head=dict(loss_bbox=dict(type='mmdet.SmoothL1Loss', beta=0.05))),
    'focal-action': dict(
        head=dict(
            loss_action=dict(_delete_=True, type='mmdet.FocalLoss', loss_weight=4.0)
        )
    ),
    'focal-cost': dict(
        head=dict(
            assigner=dict(
                match_costs=[
                    dict(type=f'mmdet.{name}Cost', weight=2.0) for name in COSTS
                ]
            )
        )
    ),
}
for name in 'c2d', 'r2plus1d', 'csn':
    EXCHANGES[name]['neck']['num_frames'] = 4


def exchanged(name, kind=KEYFRAMES):
    """The toy config of keyframes or of tubelets with one exchange."""
    config = Config.fromfile(CONFIGS / f'stmixer/{kind}_tiny_1xb8-4x3x1_toy.py')
    config.merge_from_dict(dict(model=deepcopy(EXCHANGES[name])))  # which it changes
    return config
