import tempfile
from copy import deepcopy

import numpy as np
import pytest
from mmengine.evaluator import BaseMetric
from tube_data import ava_lines, build, linked, noisy, predict_truth, score

from stmixer_mm.evaluation import FrameMAPMetric, TubeFrameMAPMetric, VideoMAPMetric
from stmixer_mm.evaluation.functional import average_precision as ap
from stmixer_mm.evaluation.functional import protocols
from stmixer_mm.evaluation.results.rows import Results
from stmixer_mm.projects import published  # noqa: F401 - protocols
from stmixer_mm.projects.diagnosis import bootstrap
from stmixer_mm.projects.diagnosis.bootstrap import (
    MatchedDetections,
    draw_videos,
    weighted_aps,
)
from stmixer_mm.projects.diagnosis.scoring import draw_values, match_results, score_pair


@pytest.mark.parametrize('mode', ap.AP_MODES)
@pytest.mark.parametrize('share', [0, 0.1, 0.6, 1])
def test_a_weight_is_so_many_copies(mode, share, monkeypatch):
    monkeypatch.setattr(bootstrap, '_CHUNK_SIZE', 5)
    random = np.random.RandomState(0)
    videos, right = random.randint(0, 6, 40), random.rand(40) < share
    gts = np.bincount(videos[right], minlength=7) + random.randint(0, 2, 7)
    weights = draw_videos(7, draws=60)
    weights[:, 0] = np.eye(7)[6]  # a video without detections alone
    aps = weighted_aps(MatchedDetections(right, videos, gts), weights, mode=mode)
    for value, weight in zip(aps, weights.T, strict=True):
        copies = np.repeat(right, weight[videos])
        expected = ap.average_precision(copies, gts @ weight, mode=mode)
        assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)


def build_drawn(kind, truth, **options):
    if kind is not FrameMAPMetric:
        return build(kind, truth, **options)
    drawn = {name: truth['gttubes'][name] for name in truth['test_videos'][0]}
    with tempfile.NamedTemporaryFile('w', suffix='.csv') as file:
        file.write('\n'.join(ava_lines(truth | dict(gttubes=drawn))))
        file.flush()
        return FrameMAPMetric(file.name, num_classes=4, **options)


@pytest.mark.parametrize(
    'kind, protocol, over',
    [
        *((TubeFrameMAPMetric, name, None) for name in protocols.FRAME_PROTOCOLS),
        *((TubeFrameMAPMetric, 'act', over) for over in ap.CLASS_AVERAGES),
        *((VideoMAPMetric, name, None) for name in protocols.TUBE_PROTOCOLS),
        *((FrameMAPMetric, name, None) for name in protocols.KEYFRAME_PROTOCOLS),
    ],
)
def test_draws_are_evaluated_anew(kind, protocol, over):
    truth, samples = noisy(0)
    truth['gttubes']['x'].pop(2)
    names, options = list('vwx'), dict(protocol=protocol, class_average=over)
    options['iou_thrs'] = ['0.3:0.5:0.1', 0.5]
    metric = build_drawn(kind, truth, **options)
    metric.process(None, deepcopy(samples))
    weights = draw_videos(3, draws=3)
    draws = draw_values(match_results(metric), names, weights)
    assert draws.keys() > {metric.prefix + '/' + metric.value_name('overall', '0.5')}
    for number, weight in enumerate(weights.T):
        copies = {
            f'{n}{i}': n for n, w in zip(names, weight, strict=True) for i in range(w)
        }
        drawn = dict(truth, test_videos=[list(copies)])
        for key in ('nframes', 'resolution', 'gttubes'):
            values = truth[key]
            drawn[key] = values | {n: values[video] for n, video in copies.items()}
        again = [
            deepcopy(sample) | dict(video_id=name)
            for name, video in copies.items()
            for sample in samples
            if sample['video_id'] == video
        ]
        values = score(build_drawn(kind, drawn, **options), again)
        for name, in_draws in draws.items():
            expected = values.get(name, np.nan)
            assert in_draws[number] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_intervals():
    weights = draw_videos(50, draws=400)
    assert (weights.sum(axis=0) == 50).all()
    assert (weights == draw_videos(50, draws=400)).all()
    values = np.append(np.arange(101.0), np.nan)
    assert bootstrap.interval(values, level=0.9) == pytest.approx((5, 95))


def score_of(truth, samples, kind):
    pairs = [('', sample) for sample in samples]
    results = Results('found', BaseMetric, lambda metric: iter(pairs))
    return score_pair(build(kind, truth), [results], draws=50)[0]


@pytest.mark.parametrize('kind', [TubeFrameMAPMetric, VideoMAPMetric])
def test_laws_of_intervals(kind):
    truth, samples = noisy(0)
    score = score_of(truth, samples, kind)
    difference = score - score
    turned = truth | dict(test_videos=[truth['test_videos'][0][::-1]])
    again = score_of(turned, samples[::-1], kind)
    assert again.values == pytest.approx(score.values)
    assert score.draws.keys() == difference.draws.keys() == score.values.keys()
    for name in score.values:
        assert difference.values[name] == 0 and difference.interval(name) == (0, 0)
        assert again.interval(name) == pytest.approx(score.interval(name))
    perfect_samples = predict_truth(truth)
    if kind is VideoMAPMetric:
        perfect_samples = []
        for name, classes in truth['gttubes'].items():
            rows = ((n, 0.9, tube) for n, tubes in classes.items() for tube in tubes)
            perfect_samples.append(linked(name, *rows))
    perfect = score_of(truth, perfect_samples, kind)
    assert perfect.interval(f'{kind.default_prefix}/overall@0.5') == (1, 1)
    alone = truth | dict(test_videos=[['v']])
    assert not score_of(alone, samples, kind).draws


def random_class(random, num_videos):
    """Detections in videos that differ in how hard they are."""
    hard = random.rand(num_videos)
    num_gts = random.randint(5, 15, num_videos)
    num_right = random.binomial(num_gts, 0.9 - 0.5 * hard)
    num_wrong = random.poisson(10 * hard)
    videos = np.repeat(np.tile(np.arange(num_videos), 2), [*num_right, *num_wrong])
    right = np.arange(len(videos)) < num_right.sum()
    order = ap.by_score(random.randn(len(videos)) + 1.5 * right - hard[videos])
    return MatchedDetections(right[order], videos[order], num_gts)


def test_intervals_hold_the_true_value():
    random = np.random.RandomState(0)
    many = random_class(random, 20_000)
    true = ap.average_precision(many.right, many.gts.sum(), mode='interpolated')
    weights, held = draw_videos(100, draws=100), 0
    for _ in range(60):
        aps = weighted_aps(random_class(random, 100), weights, mode='interpolated')
        low, high = bootstrap.interval(aps, level=0.8)
        held += low <= true <= high
    assert 0.7 < held / 60 < 0.9
