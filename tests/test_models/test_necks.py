"""Necks: pyramids that keep time, projections, and mmdet's necks frame by frame."""

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.necks import FPN, PAFPN
from mmengine.config import ConfigDict

from stmixer_mm.models import (
    FPN3D,
    PAFPN3D,
    BiFPN3D,
    ChannelProjection3D,
    ResampleTime,
    ViTPyramid3D,
)
from stmixer_mm.models.folding import fold_time, unfold_time
from stmixer_mm.models.necks.bifpn3d import fuse, shrink
from stmixer_mm.models.necks.framewise import FramewiseNeck
from stmixer_mm.models.necks.levels import resize
from stmixer_mm.models.necks.projection import resample_time
from stmixer_mm.registry import MODELS

PYRAMIDS = [FPN3D, PAFPN3D, BiFPN3D]
each_pyramid = pytest.mark.parametrize('pyramid', PYRAMIDS)
CHANNELS = [4, 6, 8]
SIZES = [(8, 12), (4, 6), (2, 3)]


def make_feats(channels=CHANNELS, sizes=SIZES, frames=2, batch=2):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, width, frames, *size, generator=generator)
        for width, size in zip(channels, sizes, strict=False)
    ]


def build(pyramid, **overrides):
    torch.manual_seed(0)
    neck = pyramid(**dict(in_channels=CHANNELS, out_channels=8) | overrides)
    neck.init_weights()
    return neck


def shapes(feats):
    return [tuple(feat.shape) for feat in feats]


@pytest.mark.parametrize('sizes', [SIZES, [(13, 19), (7, 10), (4, 5)]])
@pytest.mark.parametrize('extra', [False, 'on_output'])
@pytest.mark.parametrize('ours, theirs', [(FPN3D, FPN), (PAFPN3D, PAFPN)])
def test_on_images_they_are_mmdets(ours, theirs, extra, sizes):
    common = dict(in_channels=CHANNELS, out_channels=8, num_outs=5)
    common |= dict(add_extra_convs=extra, act_cfg=dict(type='ReLU'))
    expected = theirs(norm_cfg=dict(type='BN'), **common).eval()
    expected.init_weights()
    for name, buffer in expected.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_()
    neck = ours(norm_cfg=dict(type='BN3d'), temporal_kernel=1, **common).eval()
    neck.load_state_dict(
        {
            name: value.unsqueeze(2) if value.dim() == 4 else value
            for name, value in expected.state_dict().items()
        }
    )
    feats = make_feats(sizes=sizes, frames=1)
    wanted = expected([feat.squeeze(2) for feat in feats])
    outs = tuple(out.squeeze(2) for out in neck(feats))
    torch.testing.assert_close(outs, wanted, atol=1e-5, rtol=1e-5)


@each_pyramid
@pytest.mark.parametrize('temporal_kernel', [1, 3])
@pytest.mark.parametrize(
    'sizes', [[(13, 20), (6, 10), (5, 3), (5, 3)], [(26, 26), (13, 13), (7, 7)]]
)
def test_levels_keep_their_sizes(pyramid, temporal_kernel, sizes):
    channels = [4, 6, 8, 8][: len(sizes)]
    neck = build(pyramid, in_channels=channels, temporal_kernel=temporal_kernel)
    feats = neck(make_feats(channels, sizes))
    assert shapes(feats) == [(2, 8, 2, *size) for size in sizes]


@each_pyramid
def test_gradients_reach_all(pyramid):
    extra = {} if pyramid is BiFPN3D else dict(add_extra_convs='on_output')
    norm = dict(type='GN', num_groups=2)
    neck = build(pyramid, num_outs=5, norm_cfg=norm, **extra)
    feats = [feat.requires_grad_() for feat in make_feats()]
    outs = neck(feats)
    assert shapes(outs)[3:] == [(2, 8, 2, 1, 2), (2, 8, 2, 1, 1)]
    sum(out.square().sum() for out in outs).backward()
    assert all(feat.grad.abs().sum() > 0 for feat in feats)
    assert not [name for name, p in neck.named_parameters() if p.grad is None]


@each_pyramid
def test_a_batch_is_its_clips_and_half_stays_half(pyramid):
    neck, feats = build(pyramid).eval(), make_feats()
    outs = neck(feats)
    for clip in range(2):
        one = slice(clip, clip + 1)
        alone = neck([feat[one] for feat in feats])
        torch.testing.assert_close([out[one] for out in outs], alone)
    with torch.autocast('cpu', torch.bfloat16):
        assert {out.dtype for out in neck(feats)} == {torch.bfloat16}


@each_pyramid
def test_frames_mix_only_by_the_temporal_kernel(pyramid):
    feats = make_feats(frames=3)
    first = [feat[:, :, :1] for feat in feats]
    for temporal_kernel, apart in ((1, True), (3, False)):
        neck = build(pyramid, temporal_kernel=temporal_kernel).eval()
        for out, alone in zip(neck(feats), neck(first), strict=True):
            assert torch.allclose(out[:, :, :1], alone, atol=1e-5) is apart


@each_pyramid
def test_weights_are_uniform_by_their_fans(pyramid):
    """So the signal survives the start."""
    neck = build(pyramid, out_channels=32)
    for out in neck(make_feats()):
        assert 0.05 < out.std() < 20
    for conv in build(pyramid, temporal_kernel=1).modules():
        if isinstance(conv, torch.nn.Conv3d):
            cells = conv.kernel_size[1] * conv.kernel_size[2]
            fans = (conv.in_channels + conv.out_channels) * cells
            bound = (3 / cells if conv.groups > 1 else 6 / fans) ** 0.5
            assert 0.8 * bound < conv.weight.abs().max() <= bound
            assert conv.bias is None or not conv.bias.any()


@each_pyramid
def test_coarse_and_fine_levels_meet(pyramid):
    neck, feats = build(pyramid, temporal_kernel=1), make_feats()
    finest, *_, coarsest = neck(feats)
    assert not torch.allclose(neck([*feats[:2], feats[2] + 1])[0], finest)
    below = neck([feats[0] + 1, *feats[1:]])[-1]
    # A plain FPN has no way up.
    assert torch.allclose(below, coarsest) is (pyramid is FPN3D)


@each_pyramid
def test_settings_and_levels_that_do_not_fit(pyramid):
    for settings in (dict(num_outs=2), dict(temporal_kernel=2)):
        with pytest.raises(ValueError, match=pyramid.__name__):
            build(pyramid, **settings)
    neck, feats = build(pyramid), make_feats()
    with pytest.raises(ValueError, match='in_channels'):
        neck(feats[:2])
    with pytest.raises(ValueError, match=r'set in_channels=\[4, 6, 7\]'):
        neck(make_feats([4, 6, 7]))
    with pytest.raises(ValueError, match='ResampleTime'):
        neck([*feats[:2], feats[2][:, :, :1]])


def test_fusion_is_the_papers():
    feats = [torch.full((1, 1, 1, 1, 1), value) for value in (1.0, 10.0, 100.0)]
    fused = fuse(feats, torch.tensor([1.0, 3.0, -2.0])).item()
    assert fused == pytest.approx((1 * 1 + 3 * 10) / (4 + 1e-4), rel=1e-6)


def test_bifpn_layer_against_the_formulas():
    neck = build(BiFPN3D, num_repeats=1)
    fine, middle, coarse = neck.project(make_feats())
    (layer,) = neck.layers
    for node in [*layer.down, *layer.up]:
        torch.nn.init.uniform_(node.weights, 0.1, 2)

    def node(fusion, *feats):
        weights = fusion.weights / (fusion.weights.sum() + 1e-4)
        return fusion.conv(sum(w * f for w, f in zip(weights, feats, strict=True)))

    def double(feat):
        return feat.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)

    def halve(feat):
        return F.max_pool3d(feat, (1, 3, 3), (1, 2, 2), (0, 1, 1))

    middle_down = node(layer.down[0], middle, double(coarse))
    fine_out = node(layer.down[1], fine, double(middle_down))
    middle_out = node(layer.up[0], middle, middle_down, halve(fine_out))
    coarse_out = node(layer.up[1], coarse, halve(middle_out))
    outs = layer([fine, middle, coarse])
    torch.testing.assert_close(outs, [fine_out, middle_out, coarse_out])


def test_shrinking_keeps_the_greatest():
    feat = torch.randn(1, 1, 2, 9, 6)
    for size in [(5, 3), (4, 3), (3, 2)]:
        shrunk = shrink(feat, size)
        assert shrunk.shape == (1, 1, 2, *size)
        torch.testing.assert_close(shrunk.amax((3, 4)), feat.amax((3, 4)))


def test_resizing_is_frame_by_frame():
    feat = torch.randn(2, 3, 4, 5, 7)
    for size in [(10, 14), (9, 7), (3, 4), (8, 4), (5, 7)]:
        resized = resize(feat, size)
        assert resized.shape == (2, 3, 4, *size)
        alone = [resize(feat[:, :, t : t + 1], size) for t in range(4)]
        torch.testing.assert_close(resized, torch.cat(alone, dim=2))


def test_folding_time_and_back():
    feat = torch.randn(2, 3, 4, 5, 7)
    folded = fold_time(feat)
    torch.testing.assert_close(folded[5], feat[1, :, 1])
    assert torch.equal(unfold_time(folded, 2), feat)


def test_projections_own_resampling_is_the_adapters():
    neck = ChannelProjection3D(in_channels=[4, 4], out_channels=6, num_frames=4)
    plain = ChannelProjection3D(in_channels=[4, 4], out_channels=6)
    plain.load_state_dict(neck.state_dict())
    feats = [torch.randn(2, 4, 8, 8, 10), torch.randn(2, 4, 2, 4, 5)]
    projected = neck(feats)
    assert shapes(projected) == [(2, 6, 4, 8, 10), (2, 6, 4, 4, 5)]
    torch.testing.assert_close(projected, ResampleTime(num_frames=4)(plain(feats)))
    with pytest.raises(ValueError, match=r'set in_channels=\[4\]'):
        neck(feats[0])


def test_resampling_time_keeps_constants_and_means():
    feat = torch.randn(1, 2, 6, 3, 3)
    assert resample_time(feat, 6) is feat
    torch.testing.assert_close(
        resample_time(feat, 3), feat.unflatten(2, (3, 2)).mean(dim=3)
    )
    torch.testing.assert_close(
        resample_time(torch.ones(1, 2, 2, 3, 3), 5), torch.ones(1, 2, 5, 3, 3)
    )


@pytest.mark.parametrize('as_sequence', [True, False])
def test_vit_pyramid_scales(as_sequence):
    neck = ViTPyramid3D(in_channels=16, out_channels=6)
    feat = torch.randn(2, 16, 3, 6, 8)
    feats = neck([feat] if as_sequence else feat)
    sizes = [(24, 32), (12, 16), (6, 8), (3, 4)]
    assert shapes(feats) == [(2, 6, 3, *size) for size in sizes]
    with pytest.raises(ValueError, match='scale=3 is not supported'):
        ViTPyramid3D(in_channels=16, out_channels=6, scales=(3,))


def test_necks_chain():
    mapper = dict(type='mmdet.ChannelMapper', in_channels=[4] * 4, out_channels=5)
    necks = MODELS.build(
        [
            dict(type='ResampleTime', num_frames=2),
            dict(type='ViTPyramid3D', in_channels=8, out_channels=6),
            dict(type='BiFPN3D', in_channels=[6] * 4, out_channels=4, num_repeats=1),
            dict(type='FramewiseNeck', neck=mapper),
        ]
    )
    necks.init_weights()
    feats = necks(torch.randn(2, 8, 4, 4, 6))
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert shapes(feats) == [(2, 5, 2, *size) for size in sizes]
    sum(feat.sum() for feat in feats).backward()
    assert all(parameter.grad is not None for parameter in necks.parameters())


WIDTHS = [8, 16, 32]
FOUR = [8, 16, 32, 32]
THREE = dict(in_channels=WIDTHS, out_channels=8)
NORM = dict(type='BN')
# CARAFE itself has no CPU kernel.
SHUFFLE = dict(type='pixel_shuffle', upsample_kernel=3)
SSD = dict(in_channels=[8, 16], out_channels=[8, 16, 8, 8], level_strides=[2, 1])
YOLO = dict(num_scales=3, in_channels=[32, 16, 8], out_channels=[16, 8, 4])
# mmdet's necks: their settings, channels of the levels they are given, levels they yield.
NECKS = [
    ('FPN', dict(**THREE, num_outs=4), WIDTHS, 4),
    ('FPN', dict(**THREE, num_outs=2, start_level=1), WIDTHS, 2),
    ('PAFPN', dict(**THREE, num_outs=3), WIDTHS, 3),
    ('BFP', dict(in_channels=8, num_levels=3), [8] * 3, 3),
    ('NASFPN', dict(**THREE, num_outs=5, stack_times=1, norm_cfg=NORM), WIDTHS, 5),
    ('NASFCOS_FPN', dict(THREE, in_channels=FOUR, num_outs=5, norm_cfg=NORM), FOUR, 5),
    ('ChannelMapper', dict(**THREE, num_outs=4), WIDTHS, 4),
    ('FPN_CARAFE', dict(**THREE, num_outs=3, upsample_cfg=SHUFFLE), WIDTHS, 3),
    ('FPN_DropBlock', dict(**THREE, num_outs=3), WIDTHS, 3),
    ('SSDNeck', dict(**SSD, level_paddings=[1, 1]), [8, 16], 4),
    ('YOLOV3Neck', YOLO, WIDTHS, 3),
    ('YOLOXPAFPN', dict(**THREE, num_csp_blocks=1), WIDTHS, 3),
    ('HRFPN', dict(**THREE, num_outs=3), WIDTHS, 3),
    ('DyHead', dict(in_channels=16, out_channels=16), [16] * 3, 3),
]


@pytest.mark.parametrize('name, settings, channels, num_outs', NECKS)
def test_each_frame_is_an_image(name, settings, channels, num_outs):
    torch.manual_seed(0)
    # FPN_CARAFE reads its arguments as attributes.
    neck = FramewiseNeck(neck=ConfigDict(type=f'mmdet.{name}', **settings))
    neck.init_weights()
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3)]
    feats = [feat.requires_grad_() for feat in make_feats(channels, sizes, frames=3)]
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
