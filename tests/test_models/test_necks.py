"""Necks: pyramids that keep time, projections, and mmdet's necks frame by frame."""

import pytest
import torch
from mmdet.models.necks import FPN, PAFPN

from stmixer_mm.models import ChannelProjection3D, ResampleTime
from stmixer_mm.models.necks.framewise import FramewiseNeck
from stmixer_mm.models.necks.projection import resample_time
from stmixer_mm.projects.pyramids import FPN3D, PAFPN3D

each_pyramid = pytest.mark.parametrize('pyramid', [FPN3D, PAFPN3D])
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
    host_neck = theirs(norm_cfg=dict(type='BN'), **common).eval()
    host_neck.init_weights()
    for name, buffer in host_neck.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_()
    neck = ours(norm_cfg=dict(type='BN3d'), temporal_kernel=1, **common).eval()
    neck.load_state_dict(
        {
            name: value.unsqueeze(2) if value.dim() == 4 else value
            for name, value in host_neck.state_dict().items()
        }
    )
    feats = make_feats(sizes=sizes, frames=1)
    expected = host_neck([feat.squeeze(2) for feat in feats])
    outs = tuple(out.squeeze(2) for out in neck(feats))
    torch.testing.assert_close(outs, expected, atol=1e-5, rtol=1e-5)


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
    norm = dict(type='GN', num_groups=2)
    neck = build(pyramid, num_outs=5, norm_cfg=norm, add_extra_convs='on_output')
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
        alone = neck([feat[clip : clip + 1] for feat in feats])
        torch.testing.assert_close([out[clip : clip + 1] for out in outs], alone)
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


def test_projections_own_resampling_is_the_adapters():
    neck = ChannelProjection3D(in_channels=[4, 4], out_channels=6, num_frames=4)
    plain = ChannelProjection3D(in_channels=[4, 4], out_channels=6)
    plain.load_state_dict(neck.state_dict())
    feats = [torch.randn(2, 4, 8, 8, 10), torch.randn(2, 4, 2, 4, 5)]
    projected = neck(feats)
    assert shapes(projected) == [(2, 6, 4, 8, 10), (2, 6, 4, 4, 5)]
    torch.testing.assert_close(projected, ResampleTime(num_frames=4)(plain(feats)))


def test_resampling_time_keeps_constants_and_means():
    feat = torch.randn(1, 2, 6, 3, 3)
    assert resample_time(feat, 6) is feat
    torch.testing.assert_close(
        resample_time(feat, 3), feat.unflatten(2, (3, 2)).mean(dim=3)
    )
    torch.testing.assert_close(
        resample_time(torch.ones(1, 2, 2, 3, 3), 5), torch.ones(1, 2, 5, 3, 3)
    )


NECKS = {
    'FPN': dict(in_channels=[8, 16, 32], out_channels=8, num_outs=4),
    # It begins with the coarsest level.
    'YOLOV3Neck': dict(num_scales=3, in_channels=[32, 16, 8], out_channels=[16, 8, 4]),
}


@pytest.mark.parametrize('name', NECKS)
def test_each_frame_is_an_image(name):
    neck = FramewiseNeck(neck=dict(type=f'mmdet.{name}', **NECKS[name])).eval()
    feats = make_feats([8, 16, 32], [(16, 24), (8, 12), (4, 6)], frames=3)
    outs = neck(feats)
    areas = [out.size(-2) * out.size(-1) for out in outs]
    assert areas == sorted(areas, reverse=True)
    for clip, frame in [(0, 2), (1, 0)]:
        images = neck.neck(tuple(feat[clip : clip + 1, :, frame] for feat in feats))
        images = sorted(images, key=lambda image: -image[0, 0].numel())
        alone = [out[clip : clip + 1, :, frame] for out in outs]
        torch.testing.assert_close(alone, images, atol=1e-5, rtol=1e-5)
