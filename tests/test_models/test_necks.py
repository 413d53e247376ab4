import pytest
import torch

from stmixer_mm.models import (
    ChannelProjection3D,
    ResampleTime,
    ViTPyramid3D,
)
from stmixer_mm.models.folding import fold_time, unfold_time
from stmixer_mm.models.necks.levels import resize
from stmixer_mm.models.necks.resample_time import resample_time
from stmixer_mm.registry import MODELS


def test_projection_of_one_level():
    neck = ChannelProjection3D(in_channels=[4], out_channels=6)
    feat = torch.randn(2, 4, 3, 8, 10)
    (alone,), (listed,) = neck(feat), neck([feat])
    torch.testing.assert_close(alone, listed)


def test_projection_of_levels_that_do_not_fit():
    neck = ChannelProjection3D(in_channels=[4, 8], out_channels=6)
    with pytest.raises(ValueError, match=r'1 levels of .* set in_channels=\[4\]'):
        neck([torch.randn(2, 4, 3, 8, 10)])
    with pytest.raises(ValueError, match=r'set in_channels=\[4, 7\]'):
        neck([torch.randn(2, 4, 3, 8, 10), torch.randn(2, 7, 3, 4, 5)])


def test_projections_own_resampling_is_the_adapters():
    neck = ChannelProjection3D(in_channels=[4, 4], out_channels=6, num_frames=4)
    plain = ChannelProjection3D(in_channels=[4, 4], out_channels=6)
    plain.load_state_dict(neck.state_dict())
    feats = [torch.randn(2, 4, 8, 8, 10), torch.randn(2, 4, 2, 4, 5)]
    projected = neck(feats)
    assert [tuple(feat.shape) for feat in projected] == [
        (2, 6, 4, 8, 10),
        (2, 6, 4, 4, 5),
    ]
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


@pytest.mark.parametrize('mode', ['nearest', 'trilinear'])
def test_resizing_is_frame_by_frame(mode):
    feat = torch.randn(2, 3, 4, 5, 7)
    for size in [(10, 14), (9, 7), (3, 4), (8, 4), (5, 7)]:
        resized = resize(feat, size, mode)
        assert resized.shape == (2, 3, 4, *size)
        for frame in range(4):
            alone = resize(feat[:, :, frame : frame + 1], size, mode)
            torch.testing.assert_close(resized[:, :, frame : frame + 1], alone)


def test_trilinear_resizing_is_that_of_torch():
    feat = torch.randn(2, 3, 4, 5, 7)
    expected = torch.nn.functional.interpolate(feat, (4, 11, 13), mode='trilinear')
    torch.testing.assert_close(resize(feat, (11, 13), 'trilinear'), expected)


def test_folding_time_and_back():
    feat = torch.randn(2, 3, 4, 5, 7)
    folded = fold_time(feat)
    torch.testing.assert_close(folded[5], feat[1, :, 1])
    assert torch.equal(unfold_time(folded, 2), feat)


@pytest.mark.parametrize('as_sequence', [True, False])
def test_vit_pyramid_scales(as_sequence):
    neck = ViTPyramid3D(in_channels=16, out_channels=6)
    feat = torch.randn(2, 16, 3, 6, 8)
    feats = neck([feat] if as_sequence else feat)
    sizes = [(24, 32), (12, 16), (6, 8), (3, 4)]
    assert [tuple(feat.shape) for feat in feats] == [(2, 6, 3, *size) for size in sizes]


def test_vit_pyramid_of_what_does_not_fit():
    with pytest.raises(ValueError, match='scale=3 is not supported; use 4'):
        ViTPyramid3D(in_channels=16, out_channels=6, scales=(3,))
    neck = ViTPyramid3D(in_channels=16, out_channels=6)
    with pytest.raises(RuntimeError, match='have 16 channels, but got 8 channels'):
        neck(torch.randn(2, 8, 3, 6, 8))


def test_necks_chain():
    necks = MODELS.build(
        [
            dict(type='ResampleTime', num_frames=2),
            dict(type='ViTPyramid3D', in_channels=8, out_channels=6),
            dict(type='BiFPN3D', in_channels=[6] * 4, out_channels=4, num_repeats=1),
            dict(
                type='FramewiseNeck',
                neck=dict(
                    type='mmdet.ChannelMapper', in_channels=[4] * 4, out_channels=5
                ),
            ),
        ]
    )
    necks.init_weights()
    feats = necks(torch.randn(2, 8, 4, 4, 6))
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert [tuple(feat.shape) for feat in feats] == [(2, 5, 2, *size) for size in sizes]
    sum(feat.sum() for feat in feats).backward()
    assert all(parameter.grad is not None for parameter in necks.parameters())
