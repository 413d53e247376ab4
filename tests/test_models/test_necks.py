"""Necks: projections, and mmdet's necks frame by frame."""

import pytest
import torch
from torch.testing import assert_close

from stmixer_mm.models import ChannelProjection3D
from stmixer_mm.models.necks.framewise import FramewiseNeck
from stmixer_mm.models.necks.projection import resample_time


def test_projection_brings_levels_to_one_number_of_frames():
    neck = ChannelProjection3D(in_channels=[4, 4], out_channels=6, num_frames=4)
    plain = ChannelProjection3D(in_channels=[4, 4], out_channels=6)
    plain.load_state_dict(neck.state_dict())
    feats = [torch.randn(2, 4, 8, 8, 10), torch.randn(2, 4, 2, 4, 5)]
    projected = neck(feats)
    assert [feat.shape[1:] for feat in projected] == [(6, 4, 8, 10), (6, 4, 4, 5)]
    assert_close(projected, [resample_time(feat, 4) for feat in plain(feats)])


def test_resampling_time_keeps_constants_and_means():
    feat = torch.randn(1, 2, 6, 3, 3)
    assert resample_time(feat, 6) is feat
    assert_close(resample_time(feat, 3), feat.unflatten(2, (3, 2)).mean(dim=3))
    assert_close(resample_time(torch.ones(1, 2, 2, 3, 3), 5), torch.ones(1, 2, 5, 3, 3))


NECKS = {
    'FPN': dict(in_channels=[8, 16, 32], out_channels=8, num_outs=4),
    # It begins with the coarsest level.
    'YOLOV3Neck': dict(num_scales=3, in_channels=[32, 16, 8], out_channels=[16, 8, 4]),
}


@pytest.mark.parametrize('name', NECKS)
def test_each_frame_is_an_image(name):
    neck = FramewiseNeck(neck=dict(type=f'mmdet.{name}', **NECKS[name])).eval()
    feats = [torch.randn(2, 8 << n, 3, 16 >> n, 24 >> n) for n in range(3)]
    outs = neck(feats)
    areas = [out.size(-2) * out.size(-1) for out in outs]
    assert areas == sorted(areas, reverse=True)
    for clip, frame in (0, 2), (1, 0):
        images = neck.neck(tuple(feat[clip : clip + 1, :, frame] for feat in feats))
        images = sorted(images, key=lambda image: -image[0, 0].numel())
        alone = [out[clip : clip + 1, :, frame] for out in outs]
        assert_close(alone, images, atol=1e-5, rtol=1e-5)
