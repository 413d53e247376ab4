"""FPN3D, PAFPN3D and BiFPN3D."""

import pytest
import torch
from mmdet.models.necks import FPN, PAFPN

from stmixer_mm.checks.config import check_part
from stmixer_mm.models import FPN3D, PAFPN3D, BiFPN3D
from stmixer_mm.models.necks.bifpn3d import fuse, shrink

PYRAMIDS = [FPN3D, PAFPN3D, BiFPN3D]
CHANNELS = [4, 6, 8]


def maps(*sizes, channels=CHANNELS, frames=2, batch=2):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, width, frames, *size, generator=generator)
        for width, size in zip(channels, sizes, strict=True)
    ]


def build(pyramid, **overrides):
    torch.manual_seed(0)
    neck = pyramid(**{**dict(in_channels=CHANNELS, out_channels=8), **overrides})
    neck.init_weights()
    return neck


def shapes(feats):
    return [tuple(feat.shape) for feat in feats]


@pytest.mark.parametrize(
    'sizes', [[(16, 24), (8, 12), (4, 6)], [(13, 19), (7, 10), (4, 5)]]
)
@pytest.mark.parametrize('extra', [False, 'on_input', 'on_lateral', 'on_output', True])
@pytest.mark.parametrize('ours, theirs', [(FPN3D, FPN), (PAFPN3D, PAFPN)])
def test_on_images_they_are_mmdets(ours, theirs, extra, sizes):
    common = dict(
        in_channels=CHANNELS,
        out_channels=8,
        num_outs=5,
        add_extra_convs=extra,
        relu_before_extra_convs=True,
        act_cfg=dict(type='ReLU'),
    )
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
    feats = maps(*sizes, frames=1)
    wanted = expected([feat.squeeze(2) for feat in feats])
    outs = tuple(out.squeeze(2) for out in neck(feats))
    torch.testing.assert_close(outs, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('pyramid', PYRAMIDS)
@pytest.mark.parametrize('temporal_kernel', [1, 3])
@pytest.mark.parametrize(
    'sizes', [[(13, 20), (6, 10), (5, 3), (5, 3)], [(26, 26), (13, 13), (7, 7)]]
)
def test_levels_keep_their_sizes(pyramid, temporal_kernel, sizes):
    channels = [4, 6, 8, 8][: len(sizes)]
    neck = build(pyramid, in_channels=channels, temporal_kernel=temporal_kernel)
    feats = neck(maps(*sizes, channels=channels))
    assert shapes(feats) == [(2, 8, 2, *size) for size in sizes]


@pytest.mark.parametrize('pyramid', PYRAMIDS)
@pytest.mark.parametrize('upsample', ['nearest', 'trilinear'])
@pytest.mark.parametrize('extra', [False, 'on_lateral'])
def test_gradients_reach_all(pyramid, upsample, extra):
    neck = build(
        pyramid,
        num_outs=5,
        upsample=upsample,
        add_extra_convs=extra,
        relu_before_extra_convs=True,
        norm_cfg=dict(type='GN', num_groups=2),
    )
    feats = [feat.requires_grad_() for feat in maps((12, 16), (6, 8), (3, 4))]
    outs = neck(feats)
    assert shapes(outs)[3:] == [(2, 8, 2, 2, 2), (2, 8, 2, 1, 1)]
    sum(out.square().sum() for out in outs).backward()
    assert all(feat.grad.abs().sum() > 0 for feat in feats)
    assert not [name for name, p in neck.named_parameters() if p.grad is None]


@pytest.mark.parametrize('pyramid', PYRAMIDS)
def test_a_batch_is_its_clips(pyramid):
    neck = build(pyramid).eval()
    feats = maps((8, 12), (4, 6), (2, 3))
    for clip in range(2):
        alone = neck([feat[clip : clip + 1] for feat in feats])
        torch.testing.assert_close([out[clip : clip + 1] for out in neck(feats)], alone)


@pytest.mark.parametrize('pyramid', PYRAMIDS)
def test_frames_mix_only_by_the_temporal_kernel(pyramid):
    feats = maps((8, 12), (4, 6), (2, 3), frames=3)
    first = [feat[:, :, :1] for feat in feats]
    for temporal_kernel, apart in ((1, True), (3, False)):
        neck = build(pyramid, temporal_kernel=temporal_kernel).eval()
        whole = neck(feats)
        for out, alone in zip(whole, neck(first), strict=True):
            assert torch.allclose(out[:, :, :1], alone, atol=1e-5) is apart


@pytest.mark.parametrize('pyramid', PYRAMIDS)
def test_weights_are_uniform_by_their_fans(pyramid):
    """So the signal survives the start."""
    neck = build(pyramid, out_channels=32)
    for out in neck(maps((16, 24), (8, 12), (4, 6))):
        assert 0.05 < out.std() < 20
    for conv in build(pyramid, temporal_kernel=1).modules():
        if not isinstance(conv, torch.nn.Conv3d):
            continue
        cells = conv.kernel_size[1] * conv.kernel_size[2]
        fans = (conv.in_channels + conv.out_channels) * cells
        bound = (3 / cells if conv.groups > 1 else 6 / fans) ** 0.5
        assert 0.8 * bound < conv.weight.abs().max() <= bound
        assert conv.bias is None or not conv.bias.any()


@pytest.mark.parametrize('pyramid', PYRAMIDS)
def test_half_precision_stays_half(pyramid):
    neck = build(pyramid, num_outs=4)
    with torch.autocast('cpu', torch.bfloat16):
        outs = neck(maps((8, 12), (4, 6), (2, 3)))
    assert {out.dtype for out in outs} == {torch.bfloat16}


@pytest.mark.parametrize('pyramid', PYRAMIDS)
def test_coarse_and_fine_maps_meet(pyramid):
    neck = build(pyramid, temporal_kernel=1)
    feats = maps((8, 12), (4, 6), (2, 3))
    finest = neck(feats)[0]
    feats[-1] = feats[-1] + 1
    assert not torch.allclose(neck(feats)[0], finest)
    feats = maps((8, 12), (4, 6), (2, 3))
    coarsest = neck(feats)[-1]
    feats[0] = feats[0] + 1
    # A plain FPN has no way up.
    assert torch.allclose(neck(feats)[-1], coarsest) is (pyramid is FPN3D)


def test_norm_and_activation_by_config():
    leaky = dict(type='LeakyReLU', negative_slope=0.1)
    neck = build(FPN3D, norm_cfg=dict(type='BN3d'), act_cfg=leaky)
    for conv in [*neck.lateral_convs, *neck.fpn_convs]:
        assert isinstance(conv.norm, torch.nn.BatchNorm3d) and conv.conv.bias is None
        assert conv.activate.negative_slope == 0.1


def test_fusion_is_the_papers():
    feats = [torch.full((1, 1, 1, 1, 1), value) for value in (1.0, 10.0, 100.0)]
    fused = fuse(feats, torch.tensor([1.0, 3.0, -2.0])).item()
    assert fused == pytest.approx((1 * 1 + 3 * 10) / (4 + 1e-4), rel=1e-6)


@pytest.mark.parametrize(
    'num_levels, down, up', [(1, [], []), (2, [2], [2]), (4, [2, 2, 2], [3, 3, 2])]
)
def test_bifpn_fuses_two_or_three_levels(num_levels, down, up):
    neck = build(
        BiFPN3D, in_channels=[4], num_outs=num_levels, num_repeats=2, out_channels=4
    )
    assert len(neck.layers) == 2
    for layer in neck.layers:
        ways = [[len(node.weights) for node in way] for way in (layer.down, layer.up)]
        assert ways == [down, up]
    assert len(neck(maps((9, 12), channels=[4]))) == num_levels


def test_bifpn_layer_against_the_formulas():
    neck = build(BiFPN3D, num_repeats=1, act_cfg=None)
    fine, middle, coarse = neck.project(maps((8, 12), (4, 6), (2, 3)))
    (layer,) = neck.layers
    with torch.no_grad():
        for node in [*layer.down, *layer.up]:
            node.weights.uniform_(0.1, 2)

    def node(fusion, *feats):
        weights = fusion.weights / (fusion.weights.sum() + 1e-4)
        return fusion.conv(sum(w * f for w, f in zip(weights, feats, strict=True)))

    def double(feat):
        return feat.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)

    def halve(feat):
        return torch.nn.functional.max_pool3d(feat, (1, 3, 3), (1, 2, 2), (0, 1, 1))

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


@pytest.mark.parametrize('pyramid', PYRAMIDS)
def test_maps_that_do_not_fit(pyramid):
    neck = build(pyramid)
    name = pyramid.__name__
    with pytest.raises(ValueError, match=rf'{name} has .*=\[4, 6, 8\] but .* 2 levels'):
        neck(maps((8, 12), (4, 6), (2, 3))[:2])
    with pytest.raises(ValueError, match=r'set in_channels=\[4, 6, 7\]'):
        neck(maps((8, 12), (4, 6), (2, 3), channels=[4, 6, 7]))
    feats = maps((8, 12), (4, 6), (2, 3), frames=4)
    feats[2] = feats[2][:, :, :2]
    message = rf"{name} .* \[4, 4, 2\] frames; put dict\(type='ResampleTime'"
    with pytest.raises(ValueError, match=message):
        neck(feats)


@pytest.mark.parametrize('pyramid', PYRAMIDS)
@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(num_outs=2), 'num_outs=2 .* num_outs of 3, .* or more'),
        (dict(temporal_kernel=2), 'temporal_kernel=2; .* odd temporal_kernel'),
    ],
)
def test_numbers_that_do_not_fit(pyramid, arguments, message):
    with pytest.raises(ValueError, match=f'{pyramid.__name__} has .*{message}'):
        build(pyramid, **arguments)


@pytest.mark.parametrize(
    'pyramid, argument, value',
    [(each, 'add_extra_convs', 'on_top') for each in PYRAMIDS]
    + [(each, 'upsample', 'cubic') for each in PYRAMIDS]
    # Its last output comes after the further levels.
    + [(BiFPN3D, 'add_extra_convs', 'on_output')],
)
def test_choices_of_a_config(pyramid, argument, value):
    with pytest.raises(ValueError, match=f"{argument}='{value}'"):
        check_part(pyramid, {argument: value})
