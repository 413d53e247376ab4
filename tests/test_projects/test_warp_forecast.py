"""Laws of feature maps that are foretold."""

import numpy as np
import pytest
import tiny
import torch

from stmixer_mm.errors import UserError
from stmixer_mm.projects.forecast.sampling import SampleClipAndFuture
from stmixer_mm.projects.forecast.warp_forecast import WarpForecast, WarpStep, warp


def make_forecast(num_ahead=2, *, is_trained=True, **kwargs):
    torch.manual_seed(0)
    neck = WarpForecast(in_channels=[4, 4], num_ahead=num_ahead, clip_len=3, **kwargs)
    if not is_trained:
        neck.init_weights()
    return neck


def make_levels(frames=3):
    torch.manual_seed(1)
    return [torch.randn(2, 4, frames, 6, 8), torch.randn(2, 4, frames, 3, 4)]


class FixedStep(WarpStep):
    """One whose convolutions find the same flow, gate and change everywhere."""

    def __init__(self, flow, gate, change=0.0):
        super().__init__(4)
        torch.nn.init.zeros_(self[-1].weight)
        self[-1].bias.data = torch.tensor([*flow, gate, *[change] * 4])


def test_zero_flow_and_an_open_gate_repeat_the_last_map():
    before, last = torch.randn(2, 2, 4, 6, 8)
    step = FixedStep((0.0, 0.0), gate=100.0, change=7.0)
    torch.testing.assert_close(step(before, last), last)


@pytest.mark.parametrize(('x', 'y'), [(1, 0), (-3, 1)])
def test_a_constant_flow_shifts(x, y):
    feat = torch.randn(2, 4, 6, 8)
    padded = np.pad(feat.numpy(), ((0, 0), (0, 0), (8, 8), (8, 8)), mode='edge')
    shifted = torch.from_numpy(padded[:, :, 8 + y : 14 + y, 8 + x : 16 + x])
    step = FixedStep((float(x), float(y)), gate=100.0)
    torch.testing.assert_close(step(feat, feat), shifted)
    # Half a cell is the mean of two.
    half = torch.tensor([0.5, 0]).view(1, 2, 1, 1).expand(2, 2, 6, 8)
    means = (feat[..., :-1] + feat[..., 1:]) / 2
    torch.testing.assert_close(warp(feat, half)[..., :-1], means)


@pytest.mark.parametrize('frames', [1, 3])
def test_it_begins_by_repeating_the_last_map(frames):
    levels = make_levels(frames)
    for level, out in zip(
        levels, make_forecast(4, is_trained=False)(levels), strict=True
    ):
        assert out.shape == (2, 4, frames + 4, *level.shape[3:])
        repeated = torch.cat([level, *[level[:, :, -1:]] * 4], dim=2)
        torch.testing.assert_close(out, repeated)


def test_steps_go_on_from_what_they_made():
    levels = make_levels()
    once, thrice = make_forecast(1), make_forecast(3)
    once.load_state_dict(thrice.state_dict())
    found = levels
    for _ in range(3):
        found = once(found)
    torch.testing.assert_close(found, thrice(levels))


def test_the_loss_is_a_share_of_the_variance_of_each_clip():
    neck = make_forecast(loss_weight=3.0)
    future = make_levels(2)
    extended = [torch.cat([level, level], dim=2) for level in future]
    is_true = torch.ones(len(future[0]), neck.num_ahead, dtype=torch.bool)
    assert neck.compare(extended, future, is_true)['loss_forecast'] == 0
    means = [
        level.mean(dim=(1, 2, 3, 4), keepdim=True).expand_as(level) for level in future
    ]
    # Scale does not matter: who foretells the mean is wrong by the variance.
    for scale in (1, 100):
        loss = neck.compare(
            [scale * mean for mean in means], [scale * one for one in future], is_true
        )
        torch.testing.assert_close(loss['loss_forecast'], torch.tensor(3.0))


@pytest.mark.parametrize(('num_ahead', 'stride'), [(1, 1), (7, 1), (1, 3), (4, 3)])
def test_true_maps_are_those_of_clips_that_end_later(num_ahead, stride):
    """Frames are numbered; a level says how many frames its clip has seen by then."""
    neck = make_forecast(num_ahead)
    given = []

    def extract(clips):
        assert clips.shape[2] == 3
        given.append(clips)
        return [clips[:, :1, stride - 1 :: stride]]

    clips = torch.arange(3.0 + stride * num_ahead).expand(2, 3, 5, 5, -1)
    (level,), is_true = neck.see_future(clips.movedim(-1, 2), extract)
    assert is_true.shape == (2, num_ahead) and is_true.all()
    assert level[0, 0, :, 0, 0].tolist() == [
        2 + stride * step for step in range(1, num_ahead + 1)
    ]
    assert len(given) == -(-stride * num_ahead // 3)


def test_what_comes_behind_the_end_of_a_video_is_not_learnt():
    neck = make_forecast(3)
    clips = torch.rand(2, 3, 6, 8, 8)
    clips[1, :, 4:] = clips[1, :, 3:4]  # its last frame, repeated
    truth, is_true = neck.see_future(clips, lambda clips: [clips[:, :1]])
    assert is_true.tolist() == [[True, True, True], [True, False, False]]
    foretold = [torch.rand_like(level) for level in truth]
    loss = neck.compare(foretold, truth, is_true)['loss_forecast']
    for level in foretold:
        level[1, :, 1:] = 7
    assert neck.compare(foretold, truth, is_true)['loss_forecast'] == loss > 0
    assert neck.compare(foretold, truth, is_true & False)['loss_forecast'] == 0


def test_a_wrong_number_of_further_frames_is_named():
    neck = make_forecast(2)
    with pytest.raises(UserError, match=r'num_ahead=2 .* 2 frames, but 1 follow'):
        neck.see_future(torch.zeros(1, 3, 4, 8, 8), lambda clips: [clips])


# In a detector, whose clips have 2 frames. Training clips have 3 more.


WIDTHS = dict(in_channels=[16] * 4, out_channels=16)


def forecasting(behind=()):
    """Config of a detector that foretells three feature maps."""
    config = tiny.tiny_detector(tiny.tiny_decoder(num_frames=5))
    forecast = dict(type='WarpForecast', in_channels=[16] * 4, num_ahead=3, clip_len=2)
    config['neck'] = [config['neck'], forecast, *behind]
    return config


def training_batch():
    generator = torch.Generator().manual_seed(1)
    clips = torch.randint(
        0, 256, (2, 3, 5, 64, 96), generator=generator, dtype=torch.uint8
    )
    return dict(inputs=list(clips), data_samples=[tiny.two(), tiny.nobody()])


@pytest.mark.parametrize(
    'behind',
    [[], [dict(type='FPN3D', **WIDTHS), dict(type='ResampleTime', num_frames=5)]],
)
def test_only_its_own_loss_knows_what_comes(behind):
    model = tiny.build_detector(forecasting(behind)).train()
    data = model.data_preprocessor(training_batch(), training=True)
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
    for whole, seen in zip(
        model.extract_feat(inputs), model.extract_feat(inputs[:, :, :2]), strict=True
    ):
        assert whole.shape[2] == 5
        torch.testing.assert_close(whole, seen)
    for sample in model.predict(**data):
        assert sample.pred_instances.scores.shape[1] == tiny.NUM_CLASSES


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
