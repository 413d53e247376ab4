"""Necks of mmdet on video maps."""

import pytest
import torch
from mmengine.config import ConfigDict

from stmixer_mm.models.folding import fold_time, unfold_time
from stmixer_mm.models.necks.framewise import FramewiseNeck

CHANNELS = [8, 16, 32]
FOUR = [8, 16, 32, 32]
SIZES = [(16, 24), (8, 12), (4, 6), (2, 3)]
THREE = dict(in_channels=CHANNELS, out_channels=8)

# mmdet's necks: channels of the maps they are given, and the maps they yield.
NECKS = [
    (dict(type='mmdet.FPN', **THREE, num_outs=4), CHANNELS, 4),
    (dict(type='mmdet.FPN', **THREE, num_outs=2, start_level=1), CHANNELS, 2),
    (dict(type='mmdet.PAFPN', **THREE, num_outs=3), CHANNELS, 3),
    (dict(type='mmdet.BFP', in_channels=8, num_levels=3), [8] * 3, 3),
    (
        dict(
            type='mmdet.BFP',
            in_channels=8,
            num_levels=3,
            refine_level=1,
            refine_type='non_local',
        ),
        [8] * 3,
        3,
    ),
    (
        dict(
            type='mmdet.NASFPN',
            **THREE,
            num_outs=5,
            stack_times=1,
            norm_cfg=dict(type='BN'),
        ),
        CHANNELS,
        5,
    ),
    (
        dict(
            type='mmdet.NASFCOS_FPN',
            in_channels=FOUR,
            out_channels=8,
            num_outs=5,
            norm_cfg=dict(type='BN'),
        ),
        FOUR,
        5,
    ),
    (dict(type='mmdet.ChannelMapper', **THREE, num_outs=4), CHANNELS, 4),
    (
        dict(
            type='mmdet.FPN_CARAFE',
            **THREE,
            num_outs=3,
            # CARAFE itself has no CPU kernel.
            upsample_cfg=dict(type='pixel_shuffle', upsample_kernel=3),
        ),
        CHANNELS,
        3,
    ),
    (
        dict(
            type='mmdet.FPN_DropBlock',
            **THREE,
            num_outs=3,
            plugin=dict(type='mmdet.DropBlock', drop_prob=0.1, block_size=3),
        ),
        CHANNELS,
        3,
    ),
    (
        dict(
            type='mmdet.SSDNeck',
            in_channels=[8, 16],
            out_channels=[8, 16, 8, 8],
            level_strides=[2, 1],
            level_paddings=[1, 1],
        ),
        [8, 16],
        4,
    ),
    (
        dict(
            type='mmdet.YOLOV3Neck',
            num_scales=3,
            in_channels=[32, 16, 8],
            out_channels=[16, 8, 4],
        ),
        CHANNELS,
        3,
    ),
    (dict(type='mmdet.YOLOXPAFPN', **THREE, num_csp_blocks=1), CHANNELS, 3),
    (dict(type='mmdet.CSPNeXtPAFPN', **THREE, num_csp_blocks=1), CHANNELS, 3),
    (dict(type='mmdet.HRFPN', **THREE, num_outs=3), CHANNELS, 3),
    (
        dict(
            type='mmdet.FPG',
            in_channels=CHANNELS,
            out_channels=8,
            inter_channels=8,
            num_outs=4,
            stack_times=1,
            paths=['bu'],
            add_extra_convs=True,
            same_down_trans=None,
            same_up_trans=dict(type='conv', kernel_size=3, stride=2, padding=1),
            across_lateral_trans=dict(type='conv', kernel_size=1),
            across_down_trans=dict(type='interpolation_conv', kernel_size=3),
            across_up_trans=None,
            across_skip_trans=dict(type='conv', kernel_size=1),
            output_trans=dict(type='last_conv', kernel_size=3),
            norm_cfg=dict(type='BN'),
            skip_inds=[(0,), (), (), ()],
        ),
        CHANNELS,
        4,
    ),
    (
        dict(
            type='mmdet.SSH',
            num_scales=3,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
        ),
        CHANNELS,
        3,
    ),
    (dict(type='mmdet.DyHead', in_channels=16, out_channels=16), [16] * 3, 3),
    (
        dict(
            type='mmdet.DilatedEncoder',
            in_channels=32,
            out_channels=8,
            block_mid_channels=4,
            num_residual_blocks=2,
            block_dilations=[2, 4],
        ),
        CHANNELS,
        1,
    ),
    (
        dict(
            type='mmdet.CTResNetNeck',
            in_channels=32,
            num_deconv_filters=(16, 8),
            num_deconv_kernels=(4, 4),
            use_dcn=False,
        ),
        CHANNELS,
        1,
    ),
]


def maps(channels, sizes=SIZES, frames=3, batch=2):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, width, frames, *size, generator=generator)
        for width, size in zip(channels, sizes, strict=False)
    ]


def build(neck):
    torch.manual_seed(0)
    # FPN_CARAFE reads its arguments as attributes.
    neck = FramewiseNeck(neck=ConfigDict(neck))
    neck.init_weights()
    return neck


@pytest.mark.parametrize(
    'config, channels, num_outs',
    NECKS,
    ids=[f'{config["type"]}-{index}' for index, (config, *_) in enumerate(NECKS)],
)
def test_each_frame_is_an_image(config, channels, num_outs):
    neck = build(config)
    feats = [feat.requires_grad_() for feat in maps(channels)]
    outs = neck(feats)
    assert len(outs) == num_outs
    sum(out.square().sum() for out in outs).backward()
    unreached = [n for n, p in neck.named_parameters() if p.grad is None]
    assert not unreached

    neck.eval()
    outs = neck(feats)
    areas = [out.size(-2) * out.size(-1) for out in outs]
    assert areas == sorted(areas, reverse=True)
    for clip, frame in [(0, 2), (1, 0)]:
        images = neck.neck(tuple(feat[clip : clip + 1, :, frame] for feat in feats))
        images = sorted(images, key=lambda image: -image[0, 0].numel())
        for out, image in zip(outs, images, strict=True):
            assert out.shape[:3] == (2, image.size(1), 3)
            torch.testing.assert_close(
                out[clip, :, frame], image[0], atol=1e-5, rtol=1e-5
            )


def test_weights_are_the_necks_own():
    config = dict(type='mmdet.FPN', **THREE, num_outs=3)
    neck = build(config)
    feats = maps(CHANNELS)
    wanted = [unfold_time(out, 2) for out in neck.neck([fold_time(f) for f in feats])]
    for out, expected in zip(neck(feats), wanted, strict=True):
        torch.testing.assert_close(out, expected)


def test_maps_that_are_not_equally_long():
    neck = build(dict(type='mmdet.FPN', **THREE, num_outs=3))
    feats = maps(CHANNELS)
    feats[0] = feats[0][:, :, :1]
    with pytest.raises(ValueError, match=r"\[1, 3, 3\] frames; .*'ResampleTime'"):
        neck(feats)
