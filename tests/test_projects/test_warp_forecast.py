"""Laws of feature maps that are foretold."""

import numpy as np
import pytest
import tiny
import torch

from stmixer_mm.projects.forecast.sampling import SampleClipAndFuture
from stmixer_mm.projects.forecast.warp_forecast import WarpForecast, WarpStep, warp


def make_forecast(num_ahead=2, **settings):
    torch.manual_seed(0)
    return WarpForecast(in_channels=[4, 4], num_ahead=num_ahead, clip_len=3, **settings)


def make_levels(frames=3):
    return [torch.randn(2, 4, frames, 6, 8), torch.randn(2, 4, frames, 3, 4)]


@pytest.mark.parametrize(('x', 'y'), [(1, 0), (-3, 1)])
def test_a_constant_flow_shifts(x, y):
    """Where the gate is open, nothing else changes."""
    step = WarpStep(4)
    torch.nn.init.zeros_(step[-1].weight)
    step[-1].bias.data = torch.tensor([x, y, 100.0, 7, 7, 7, 7])  # flow, gate, change
    feat = torch.randn(2, 4, 6, 8)
    padded = np.pad(feat.numpy(), ((0, 0), (0, 0), (8, 8), (8, 8)), mode='edge')
    shifted = torch.from_numpy(padded[:, :, 8 + y : 14 + y, 8 + x : 16 + x])
    torch.testing.assert_close(step(torch.randn_like(feat), feat), shifted)
    # Half a cell is the mean of two.
    half = torch.tensor([0.5, 0]).view(1, 2, 1, 1).expand(2, 2, 6, 8)
    means = (feat[..., :-1] + feat[..., 1:]) / 2
    torch.testing.assert_close(warp(feat, half)[..., :-1], means)


@pytest.mark.parametrize('frames', [1, 3])
def test_it_begins_by_repeating_the_last_map(frames):
    levels, neck = make_levels(frames), make_forecast(4)
    neck.init_weights()
    for level, out in zip(levels, neck(levels), strict=True):
        repeated = torch.cat([level, *[level[:, :, -1:]] * 4], dim=2)
        torch.testing.assert_close(out, repeated)


def test_steps_go_on_from_what_they_made():
    levels, once = make_levels(), make_forecast(1)
    thrice = once(once(once(levels)))
    torch.testing.assert_close(thrice, make_forecast(3)(levels))


def test_the_loss_is_a_share_of_the_variance_of_each_clip():
    """Scale does not matter: who foretells the mean is wrong by the variance."""
    neck, future = make_forecast(loss_weight=3.0), make_levels(2)
    future[0][1] *= 100
    means = [one.mean((1, 2, 3, 4), keepdim=True).expand_as(one) for one in future]
    is_true = torch.ones(2, 2, dtype=torch.bool)
    assert neck.compare(future, future, is_true)['loss_forecast'] == 0
    loss = neck.compare(means, future, is_true)['loss_forecast']
    torch.testing.assert_close(loss, torch.tensor(3.0))


@pytest.mark.parametrize(('num_ahead', 'stride'), [(7, 1), (1, 3), (4, 3)])
def test_true_maps_are_those_of_clips_that_end_later(num_ahead, stride):
    """Frames are numbered; a level says how many frames its clip has seen by then."""

    def extract(clips):
        assert clips.shape[2] == 3
        return [clips[:, :1, stride - 1 :: stride]]

    clips = torch.arange(3.0 + stride * num_ahead).expand(2, 3, 5, 5, -1)
    neck = make_forecast(num_ahead)
    (level,), is_true = neck.see_future(clips.movedim(-1, 2), extract)
    assert is_true.shape == (2, num_ahead) and is_true.all()
    expected = [2 + stride * step for step in range(1, num_ahead + 1)]
    assert level[0, 0, :, 0, 0].tolist() == expected


def test_what_comes_behind_the_end_of_a_video_is_not_learnt():
    neck, clips = make_forecast(3), torch.rand(2, 3, 6, 8, 8)
    clips[1, :, 4:] = clips[1, :, 3:4]  # its last frame, repeated
    truth, is_true = neck.see_future(clips, lambda clips: [clips[:, :1]])
    assert is_true.tolist() == [[True, True, True], [True, False, False]]
    foretold = torch.rand_like(truth[0])
    loss = neck.compare([foretold], truth, is_true)['loss_forecast']
    foretold[1, :, 1:] = 7
    assert neck.compare([foretold], truth, is_true)['loss_forecast'] == loss > 0
    assert neck.compare([foretold], truth, is_true & False)['loss_forecast'] == 0


def detector():
    """For clips of 2 frames; training clips have 3 more."""
    config = tiny.tiny_detector(tiny.tiny_decoder(num_frames=5))
    forecast = dict(type='WarpForecast', in_channels=[16] * 4, num_ahead=3, clip_len=2)
    behind = dict(type='FPN3D', in_channels=[16] * 4, out_channels=16)
    config['neck'] = [config['neck'], forecast, behind]
    return tiny.build_detector(config).train()


def samples():
    return [tiny.two(clip_len=5), tiny.nobody(clip_len=5)]


def test_only_its_own_loss_knows_what_comes():
    model = detector()
    data = model.data_preprocessor(tiny.batch(*samples()), training=True)
    losses = model.loss(**data)
    model.parse_losses(losses)[0].backward()
    tiny.assert_all_learn(model)
    inputs = data['inputs'].clone()
    inputs[:, :, 2:] += 1
    changed = model.loss(inputs, data['data_samples'])
    alone = model.loss(inputs[:, :, :2], data['data_samples'])
    assert losses['loss_forecast'] != changed['loss_forecast']
    assert 'loss_forecast' not in alone
    for name, value in alone.items():
        torch.testing.assert_close(value, losses[name])
        torch.testing.assert_close(value, changed[name])
    model.eval()
    whole, seen = map(model.extract_feat, (inputs, inputs[:, :, :2]))
    assert all(level.shape[2] == 5 for level in whole)
    torch.testing.assert_close(whole, seen)


@pytest.mark.parametrize(
    ('timestamp', 'options', 'wanted'),
    [
        (2, dict(ahead_s=0.5, num_future=2), [6, 9, 12, 15, 18, 21]),
        (2, dict(num_future=1), [14, 17, 20, 23, 26]),
        (3.9, dict(ahead_s=0.1, num_future=2), [29, 32, 35, 38, 39, 39]),
    ],
)
def test_frames_after_the_clip(timestamp, options, wanted):
    sampler = SampleClipAndFuture(clip_len=4, frame_interval=3, **options)
    results = sampler(dict(timestamp=timestamp, fps=10, total_frames=40))
    assert results['frame_inds'].tolist() == wanted
