"""Laws of the pyramids that keep time."""

import pytest
import torch
from mmdet.models.necks import FPN, PAFPN

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
