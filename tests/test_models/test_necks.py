import pytest
import torch

from stmixer_mm.models.necks import ChannelProjection3D, ViTPyramid3D
from stmixer_mm.models.necks.projection import resample_time


def test_projection_keeps_sizes():
    neck = ChannelProjection3D(in_channels=[4, 8], out_channels=6)
    neck.init_weights()
    feats = neck([torch.randn(2, 4, 3, 8, 10), torch.randn(2, 8, 3, 4, 5)])
    assert [tuple(feat.shape) for feat in feats] == [(2, 6, 3, 8, 10), (2, 6, 3, 4, 5)]


def test_projection_of_another_number_of_maps():
    neck = ChannelProjection3D(in_channels=[4, 8], out_channels=6)
    with pytest.raises(
        ValueError, match='yields 1 maps but the neck has 2 in_channels'
    ):
        neck([torch.randn(2, 4, 3, 8, 10)])


def test_projection_brings_levels_to_one_time():
    neck = ChannelProjection3D(in_channels=[4, 4], out_channels=6, num_frames=4)
    feats = neck([torch.randn(2, 4, 8, 8, 10), torch.randn(2, 4, 2, 4, 5)])
    assert [feat.size(2) for feat in feats] == [4, 4]


def test_resampling_time_keeps_constants_and_means():
    feat = torch.randn(1, 2, 6, 3, 3)
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
    assert [tuple(feat.shape) for feat in feats] == [(2, 6, 3, *size) for size in sizes]


def test_vit_pyramid_of_an_unsupported_scale():
    with pytest.raises(ValueError, match='scale=3 is not supported; use 4'):
        ViTPyramid3D(in_channels=16, out_channels=6, scales=(3,))
