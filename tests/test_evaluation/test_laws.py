"""What every metric obeys, whatever the names of its rules."""

import itertools

import numpy as np
import pytest
import torch
from test_frame_map_metric import predict as predict_keyframe
from test_tube_metrics import (
    TWO_VIDEOS,
    build,
    evaluate,
    ground_truth,
    noisy,
    predict,
    predict_truth,
    still,
)

from stmixer_mm.evaluation import FrameMAPMetric, TubeFrameMAPMetric, VideoMAPMetric
from stmixer_mm.evaluation.functional.average_precision import AP_MODES, CLASS_AVERAGES
from stmixer_mm.evaluation.functional.linking import FRAME_NMS, LINKINGS
from stmixer_mm.evaluation.functional.protocols import KEYFRAME_PROTOCOLS, PROTOCOLS

THRS = (0.5, '0.5:0.95')


def keyframe_rules():
    for protocol, ap_mode, over in itertools.product(
        KEYFRAME_PROTOCOLS, AP_MODES, CLASS_AVERAGES
    ):
        yield dict(protocol=protocol, ap_mode=ap_mode, class_average=over)


def tube_rules():
    """Metrics by all names; the labels without ground truth are left out."""
    kinds = [(TubeFrameMAPMetric, dict(nms=nms)) for nms in (None, *FRAME_NMS)]
    kinds += [(VideoMAPMetric, dict(linking=name)) for name in LINKINGS]
    kinds.append((VideoMAPMetric, dict(linking=dict(trim_cost=1))))
    for (metric_type, options), protocol, over in itertools.product(
        kinds, PROTOCOLS, CLASS_AVERAGES
    ):
        rules = dict(protocol=protocol, class_average=over, excluded_labels=['jump'])
        yield metric_type, {**options, **rules, 'iou_thrs': THRS}


def keyframes(seed=0):
    """Lines of ground truth and detections around it, of random scores."""
    random = np.random.RandomState(seed)
    lines, perfect, found = [], [], []
    for time in range(1, 9):
        bboxes = np.sort(random.rand(3, 2, 2), axis=1).reshape(3, 4)
        bboxes = bboxes.astype(np.float32)
        classes = random.permutation(3) + 1
        for box, number in zip(bboxes.tolist(), classes, strict=True):
            lines.append(f'v,{time},{",".join(map(repr, box))},{number},0')
        perfect.append(predict_keyframe('v', time, bboxes, np.eye(4)[classes]))
        near = np.repeat(bboxes, 2, axis=0) + random.normal(0, 0.04, (6, 4))
        near = np.sort(near.reshape(6, 2, 2), axis=1).reshape(6, 4)
        found.append(predict_keyframe('v', time, near, random.rand(6, 4)))
    return lines, perfect, found


@pytest.mark.parametrize('rules', list(keyframe_rules()), ids=str)
def test_keyframes_all_or_nothing(write_text, rules):
    lines, perfect, _ = keyframes()
    ann_file = write_text('a.csv', *lines)
    metric = FrameMAPMetric(ann_file, num_classes=4, iou_thrs=(0.5, 0.95), **rules)
    assert set(evaluate(metric, *perfect).values()) == {1}
    for nothing in ([], [predict_keyframe('v', 1, [], [])]):
        assert set(evaluate(metric, *nothing).values()) == {0}


@pytest.mark.parametrize('rules', list(keyframe_rules()), ids=str)
def test_keyframes_order_padding_and_monotone_scores(write_text, rules):
    lines, _, samples = keyframes()
    ann_file = write_text('a.csv', *lines)
    metric = FrameMAPMetric(ann_file, num_classes=4, score_thr=-1, **rules)
    whole = evaluate(metric, *samples)
    assert 0.01 < whole['mAP/overall'] < 0.99
    changed = []
    for sample in samples:
        copy = sample.new()
        found = sample.pred_instances[torch.randperm(6)]
        found.scores = found.scores.double() ** 3 / 2
        copy.pred_instances = found
        changed.append(copy)
    # A sampler pads: two keyframes come twice.
    assert evaluate(metric, *changed[::-1], *changed[:2]) == whole


@pytest.mark.parametrize('metric_type, rules', list(tube_rules()), ids=str)
def test_tubes_all_or_nothing(metric_type, rules):
    metric = build(metric_type, TWO_VIDEOS, **rules)
    assert set(evaluate(metric, *predict_truth(TWO_VIDEOS)).values()) == {1}
    for nothing in ([], [predict('v', 1)]):
        assert set(evaluate(metric, *nothing).values()) == {0}


@pytest.mark.parametrize('metric_type', [TubeFrameMAPMetric, VideoMAPMetric])
def test_a_range_is_the_mean_of_its_thresholds(metric_type):
    truth, samples = noisy(0)
    thrs = [0.5 + 0.05 * i for i in range(10)]
    options = dict(linking=dict(min_length=5)) if metric_type is VideoMAPMetric else {}
    metric = build(
        metric_type, truth, iou_thrs=('0.5:0.95', *thrs), per_class=False, **options
    )
    mean, *single = evaluate(metric, *samples).values()
    assert len(single) == 10
    assert mean == pytest.approx(np.mean(single), abs=1e-12)
    assert single[0] > mean > 0


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('metric_type', [TubeFrameMAPMetric, VideoMAPMetric])
def test_half_a_box_of_whole_pixels_is_half(metric_type, protocol, dtype):
    """Half in the published evaluators' pixels is half of what comes normalised."""
    pixel = {'act': 1, 'multisports': 0}[protocol]
    random = np.random.RandomState(0)
    gttubes, samples = {}, []
    for number in range(20):
        low, (half, height) = random.randint(0, 30, 2), random.randint(2, 30, 2)
        (x1, y1), sides = low, (2 * half - pixel, half - pixel)
        wide, narrow = ([x1, y1, x1 + side, y1 + height] for side in sides)
        gttubes[f'{number}'] = {0: [still(1, 20, wide)]}
        samples += [predict(f'{number}', t, (narrow, {0: 0.9})) for t in range(1, 21)]
    for sample in samples:
        sample.pred_instances.bboxes = sample.pred_instances.bboxes.to(dtype)
    rules = dict(protocol=protocol, iou_thrs=(0.5,))
    metric = build(metric_type, ground_truth(gttubes), **rules)
    assert set(evaluate(metric, *samples).values()) == {1}


@pytest.mark.parametrize('seed', range(3))
def test_errors_are_what_ap_lacks(seed):
    truth, samples = noisy(seed)
    values = evaluate(build(TubeFrameMAPMetric, truth, error_analysis=True), *samples)
    errors = {k: v for k, v in values.items() if '/error/' in k}
    ap = errors.pop('frame_mAP/error/ap')
    assert ap == pytest.approx(values['frame_mAP/overall@0.5'], abs=1e-12)
    assert sum(errors.values()) == pytest.approx(1 - ap, abs=1e-12)
    assert 0.05 < ap < 0.95


def test_trimming_reaches_video_map():
    # The tubes are found in all 40 frames, with low scores where nothing happens.
    samples = predict_truth(TWO_VIDEOS)
    (tube,) = TWO_VIDEOS['gttubes']['w'][0]
    for sample in samples:
        if sample.video_id == 'w' and not 3 <= sample.timestamp <= 18:
            more = predict('w', sample.timestamp, (tube[0, 1:], {0: 0.1}))
            sample.pred_instances = more.pred_instances
    only_w = dict(TWO_VIDEOS, test_videos=[['w']])
    for trim_cost, expected in ((None, 0), (1, 1)):
        linking = dict(trim_cost=trim_cost)
        metric = build(VideoMAPMetric, only_w, linking=linking, iou_thrs=(0.9,))
        assert evaluate(metric, *samples)['video_mAP/run@0.9'] == expected
