import numpy as np
import pytest
from tube_data import build, noisy, score

from stmixer_mm.evaluation import TubeFrameMAPMetric
from stmixer_mm.evaluation.functional.average_precision import (
    AP_MODES,
    CLASS_AVERAGES,
    average_precision,
    by_score,
)
from stmixer_mm.projects.diagnosis import bootstrap
from stmixer_mm.projects.diagnosis.bootstrap import (
    Judged,
    draw_videos,
    interval,
    weighted_aps,
    weighted_means,
)


@pytest.mark.parametrize('mode', AP_MODES)
@pytest.mark.parametrize('share', [0, 0.1, 0.6, 1])
def test_a_weight_is_so_many_copies(mode, share, monkeypatch):
    monkeypatch.setattr(bootstrap, '_AT_ONCE', 5)
    random = np.random.RandomState(0)
    videos, right = random.randint(0, 6, 40), random.rand(40) < share
    gts = np.bincount(videos[right], minlength=7) + random.randint(0, 2, 7)
    weights = draw_videos(7, draws=60)
    weights[:, 0] = np.eye(7)[6]  # a video without detections alone
    found = weighted_aps(Judged(right, videos, gts), weights, mode=mode)
    for ap, weight in zip(found, weights.T, strict=True):
        copies = np.repeat(right, weight[videos])
        expected = average_precision(copies, gts @ weight, mode=mode)
        assert ap == pytest.approx(expected, abs=1e-12, nan_ok=True)


def copy_video(sample, name):
    found = dict(sample['pred_instances'])
    return dict(sample, video_id=name, pred_instances=found)


@pytest.mark.parametrize('over', CLASS_AVERAGES)
@pytest.mark.parametrize('protocol', ['act', 'yowo', 'yowoformer'])
def test_draws_are_evaluated_anew(protocol, over):
    truth, samples = noisy(0)
    truth['gttubes']['x'].pop(2)
    truth['gttubes']['w'].pop(2)
    names, options = list('vwx'), dict(protocol=protocol, class_average=over)
    metric = build(TubeFrameMAPMetric, truth, **options)
    metric.process(None, samples)
    detections, limit = metric.detections(metric.results), metric.frame_limit
    classes = []
    for column in metric.class_names:
        matched = metric.match(detections, column, min_iou=0.5)
        order = by_score(matched.scores)
        gts = metric.counted_gts(detections, column).frames // limit
        right = metric.right(matched, 0.5)[order]
        videos = matched.groups[order] // limit
        classes.append(Judged(right, videos, np.bincount(gts, minlength=3)))
    weights = draw_videos(3, draws=12)
    rules = dict(mode=metric.protocol.ap, over=over)
    means, _ = weighted_means(classes, weights, **rules)
    for mean, weight in zip(means, weights.T, strict=True):
        copies = {
            f'{n}{i}': n for n, w in zip(names, weight, strict=True) for i in range(w)
        }
        drawn = dict(truth, test_videos=[list(copies)])
        for key in ('nframes', 'resolution', 'gttubes'):
            drawn[key] = truth[key] | {n: truth[key][one] for n, one in copies.items()}
        again = [
            copy_video(sample, name)
            for name, one in copies.items()
            for sample in samples
            if sample['video_id'] == one
        ]
        values = score(build(TubeFrameMAPMetric, drawn, **options), again)
        assert mean == pytest.approx(values['frame_mAP/overall@0.5'], abs=1e-12)


def test_intervals():
    weights = draw_videos(50, draws=400)
    assert (weights.sum(axis=0) == 50).all()
    assert (weights == draw_videos(50, draws=400)).all()
    assert interval(np.append(np.arange(101.0), np.nan), level=0.9) == pytest.approx(
        (5, 95)
    )
