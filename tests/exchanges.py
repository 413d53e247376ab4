"""Exchanges of one part in the toy configs; those of several parts: configs/experiments."""

from copy import deepcopy

from every_config import CONFIGS
from mmengine.config import Config

KEYFRAMES, TUBELETS = 'stmixer', 'stmixer-t'


def mmdet(kind, **settings):
    return dict(type=f'mmdet.{kind}', **settings)


def framewise(neck, **settings):
    """A neck of mmdet on each frame."""
    return dict(type='FramewiseNeck', neck=mmdet(neck, **settings))


def backbone(kind, in_channels, **settings):
    """A backbone, and the neck for its widths."""
    settings = dict(_delete_=True, type=kind, **settings)
    return dict(backbone=settings, neck=dict(in_channels=in_channels))


def tapped(kind, layers, in_channels, time_in_batch=False, **settings):
    taps = dict(taps=layers, time_in_batch=time_in_batch)
    settings = dict(type=f'mmaction.{kind}', **settings)
    return backbone('TappedBackbone', in_channels, backbone=settings, **taps)


def projection(in_channels):
    return dict(type='ChannelProjection3D', in_channels=in_channels, out_channels=64)


TWO_STAGES = dict(depth=18, num_stages=2, dilations=(1, 1))
C2D = TWO_STAGES | dict(strides=(1, 2), out_indices=(1,))
WITH_TIME = TWO_STAGES | dict(base_channels=16, inflate=(1, 1), out_indices=(0, 1))
WITH_TIME |= dict(spatial_strides=(1, 2))
I3D = WITH_TIME | dict(conv1_kernel=(5, 7, 7), temporal_strides=(1, 1))
R2PLUS1D = WITH_TIME | dict(temporal_strides=(1, 2), conv_cfg=dict(type='Conv2plus1d'))
CSN = dict(depth=50, num_stages=3, stage_blocks=(1, 1, 1), base_channels=8)
CSN |= dict(spatial_strides=(1, 2, 2), temporal_strides=(1, 2, 2), with_pool2=False)
CSN |= dict(dilations=(1, 1, 1), inflate=(1, 1, 1), out_indices=(0, 1, 2))
CSN |= dict(pretrained=None)
SWIN = dict(arch=dict(embed_dims=24, depths=[2, 2, 2], num_heads=[1, 2, 4]))
SWIN |= dict(window_size=(2, 7, 7), out_indices=(0, 1, 2))
MVIT = dict(embed_dims=16, num_layers=3, num_heads=1, downscale_indices=[1, 2])
MVIT = dict(arch=MVIT, spatial_size=96, temporal_size=4, out_scales=[0, 1, 2])
MVIT |= dict(output_cls_token=False)
UNIFORMER = dict(depth=[1] * 4, embed_dim=[16, 32, 64, 128], head_dim=16)
PVT = mmdet('PyramidVisionTransformerV2', embed_dims=16, num_layers=[1] * 4)
for settings in R2PLUS1D, CSN, SWIN, UNIFORMER:
    settings['pretrained2d'] = False
LAYERS, BLOCKS = ['layer1', 'layer2'], ['blocks1', 'blocks2', 'blocks3', 'norm']
BACKBONES = {
    'i3d': backbone('mmaction.ResNet3d', [16, 32], **I3D),
    'c2d': tapped('C2D', LAYERS, [64, 128], time_in_batch=True, **C2D),
    'r2plus1d': tapped('ResNet2Plus1d', LAYERS, [16, 32], **R2PLUS1D),
    'csn': backbone('mmaction.ResNet3dCSN', [32, 64, 128], **CSN),
    'swin3d': backbone('mmaction.SwinTransformer3D', [24, 48, 96], **SWIN),
    'mvit': backbone('mmaction.MViT', [16, 32, 64], **MVIT),
    'uniformer': tapped('UniFormer', BLOCKS, [16, 32, 64, 128], **UNIFORMER),
    'pvt2d': backbone('FramewiseBackbone', [16, 32, 80, 128], backbone=PVT),
}
# Those that stride time need it in the decoder, or a neck that undoes it.
for name in 'i3d', 'swin3d', 'mvit', 'uniformer':
    BACKBONES[name]['decoder'] = dict(num_frames=2)
for name in 'c2d', 'r2plus1d', 'csn':
    BACKBONES[name]['neck']['num_frames'] = 4

LEVELS = dict(in_channels=[16, 64], out_channels=64)
NASFPN = framewise('NASFPN', **LEVELS, num_outs=5, stack_times=1)
SSD = dict(in_channels=[16, 64], out_channels=[16, 64, 64])
PIXEL_SHUFFLE = dict(type='pixel_shuffle', upsample_kernel=3)  # CARAFE's needs a GPU
CARAFE = framewise('FPN_CARAFE', **LEVELS, num_outs=2, upsample_cfg=PIXEL_SHUFFLE)
LEAKY = dict(type='LeakyReLU', negative_slope=0.1)
FPN = framewise(
    'FPN',
    **LEVELS,
    num_outs=4,
    add_extra_convs='on_output',
    norm_cfg=dict(type='BN'),
    act_cfg=LEAKY,
)
NECKS = {
    'framewise-fpn-batchnorm-leaky': dict(_delete_=True, **FPN),
    'vit-pyramid-framewise-fpn': [
        dict(type='ViTPyramid3D', in_channels=64, out_channels=64),
        framewise('FPN', in_channels=[64] * 4, out_channels=64, num_outs=4),
    ],
    'framewise-bfp': [
        projection([16, 64]),
        framewise('BFP', in_channels=64, num_levels=2, refine_level=1),
    ],
    'framewise-nasfpn': dict(_delete_=True, **NASFPN),
    'framewise-ssd': [
        framewise('SSDNeck', **SSD, level_strides=[2], level_paddings=[1]),
        projection([16, 64, 64]),
    ],
    'framewise-carafe': dict(_delete_=True, **CARAFE),
}
COSTS = [mmdet(f'{name}Cost', weight=2.0) for name in ('FocalLoss', 'BBoxL1', 'IoU')]
# CIoU with the default eps (square pixels) divides 0 by 0 at an exactly right box; four
# times focal loss is about cross-entropy at the start.
HEADS = {
    'ciou': dict(loss_iou=mmdet('CIoULoss', eps=0.1)),
    'smooth-l1': dict(loss_bbox=mmdet('SmoothL1Loss', beta=0.05)),
    'focal-action': dict(
        loss_action=mmdet('FocalLoss', _delete_=True, loss_weight=4.0)
    ),
    'focal-cost': dict(assigner=dict(match_costs=COSTS)),
}
EXCHANGES = BACKBONES | {name: dict(neck=neck) for name, neck in NECKS.items()}
EXCHANGES |= {name: dict(head=head) for name, head in HEADS.items()}


def exchanged(name, kind=KEYFRAMES):
    """The toy config of keyframes or of tubelets with one exchange."""
    config = Config.fromfile(CONFIGS / f'stmixer/{kind}_tiny_1xb8-4x3x1_toy.py')
    config.merge_from_dict(dict(model=deepcopy(EXCHANGES[name])))  # which it changes
    return config
