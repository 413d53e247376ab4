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
NORM = dict(type='BN')
BFP = dict(in_channels=8, num_levels=3)
# CARAFE itself has no CPU kernel.
SHUFFLE = dict(type='pixel_shuffle', upsample_kernel=3)
DROP_BLOCK = dict(type='mmdet.DropBlock', drop_prob=0.1, block_size=3)
FPG = dict(
    **THREE,
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
    norm_cfg=NORM,
    skip_inds=[(0,), (), (), ()],
)

# mmdet's necks: their settings, channels of the levels they are given, levels they yield.
NECKS = [
    ('FPN', dict(**THREE, num_outs=4), CHANNELS, 4),
    ('FPN', dict(**THREE, num_outs=2, start_level=1), CHANNELS, 2),
    ('PAFPN', dict(**THREE, num_outs=3), CHANNELS, 3),
    ('BFP', BFP, [8] * 3, 3),
    ('BFP', dict(BFP, refine_level=1, refine_type='non_local'), [8] * 3, 3),
    ('NASFPN', dict(**THREE, num_outs=5, stack_times=1, norm_cfg=NORM), CHANNELS, 5),
    (
        'NASFCOS_FPN',
        dict(in_channels=FOUR, out_channels=8, num_outs=5, norm_cfg=NORM),
        FOUR,
        5,
    ),
    ('ChannelMapper', dict(**THREE, num_outs=4), CHANNELS, 4),
    ('FPN_CARAFE', dict(**THREE, num_outs=3, upsample_cfg=SHUFFLE), CHANNELS, 3),
    ('FPN_DropBlock', dict(**THREE, num_outs=3, plugin=DROP_BLOCK), CHANNELS, 3),
    (
        'SSDNeck',
        dict(in_channels=[8, 16], out_channels=[8, 16, 8, 8])
        | dict(level_strides=[2, 1], level_paddings=[1, 1]),
        [8, 16],
        4,
    ),
    (
        'YOLOV3Neck',
        dict(num_scales=3, in_channels=[32, 16, 8], out_channels=[16, 8, 4]),
        CHANNELS,
        3,
    ),
    ('YOLOXPAFPN', dict(**THREE, num_csp_blocks=1), CHANNELS, 3),
    ('CSPNeXtPAFPN', dict(**THREE, num_csp_blocks=1), CHANNELS, 3),
    ('HRFPN', dict(**THREE, num_outs=3), CHANNELS, 3),
    ('FPG', FPG, CHANNELS, 4),
    (
        'SSH',
        dict(num_scales=3, in_channels=CHANNELS, out_channels=CHANNELS),
        CHANNELS,
        3,
    ),
    ('DyHead', dict(in_channels=16, out_channels=16), [16] * 3, 3),
    (
        'DilatedEncoder',
        dict(in_channels=32, out_channels=8, block_mid_channels=4)
        | dict(num_residual_blocks=2, block_dilations=[2, 4]),
        CHANNELS,
        1,
    ),
    (
        'CTResNetNeck',
        dict(in_channels=32, num_deconv_filters=(16, 8), num_deconv_kernels=(4, 4))
        | dict(use_dcn=False),
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


def build(name, settings):
    torch.manual_seed(0)
    # FPN_CARAFE reads its arguments as attributes.
    neck = FramewiseNeck(neck=ConfigDict(type=f'mmdet.{name}', **settings))
    neck.init_weights()
    return neck


@pytest.mark.parametrize('name, settings, channels, num_outs', NECKS)
def test_each_frame_is_an_image(name, settings, channels, num_outs):
    neck = build(name, settings)
    feats = [feat.requires_grad_() for feat in maps(channels)]
    outs = neck(feats)
    assert len(outs) == num_outs
    sum(out.square().sum() for out in outs).backward()
    assert not [name for name, p in neck.named_parameters() if p.grad is None]

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
    neck = build('FPN', dict(**THREE, num_outs=3))
    feats = maps(CHANNELS)
    wanted = [unfold_time(out, 2) for out in neck.neck([fold_time(f) for f in feats])]
    torch.testing.assert_close(neck(feats), wanted)


def test_maps_that_are_not_equally_long():
    neck = build('FPN', dict(**THREE, num_outs=3))
    feats = maps(CHANNELS)
    feats[0] = feats[0][:, :, :1]
    with pytest.raises(ValueError, match=r"\[1, 3, 3\] frames; .*'ResampleTime'"):
        neck(feats)
