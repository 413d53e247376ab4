"""Laws of every metric, whatever its protocol."""

import numpy as np
import pytest
from tube_data import (
    TWO_VIDEOS,
    ava_lines,
    build,
    noisy,
    predict,
    predict_truth,
    score,
    untidy,
)

from stmixer_mm.errors import UserError
from stmixer_mm.evaluation import FrameMAPMetric, TubeFrameMAPMetric, VideoMAPMetric
from stmixer_mm.evaluation.functional.average_precision import CLASS_AVERAGES
from stmixer_mm.evaluation.functional.linking import FRAME_NMS, LINKINGS, Linking
from stmixer_mm.evaluation.functional.protocols import (
    FRAME_PROTOCOLS,
    KEYFRAME_PROTOCOLS,
    TUBE_PROTOCOLS,
)
from stmixer_mm.projects import published  # noqa: F401 - protocols

TUBE_METRICS = TubeFrameMAPMetric, VideoMAPMetric


def shuffled(samples):
    """In another order, with the boxes in another order, twice at the end, as samplers
    pad, and with scores that rise alike."""
    changed = []
    for sample in samples:
        bboxes, scores = sample['pred_instances'].values()
        order = np.random.RandomState(1).permutation(len(bboxes))
        instances = dict(bboxes=bboxes[order], scores=scores[order] / 2)
        changed.append(dict(sample, pred_instances=instances))
    return [*changed[::-1], *changed[:2]]


@pytest.mark.parametrize('over', CLASS_AVERAGES)
@pytest.mark.parametrize('protocol', KEYFRAME_PROTOCOLS)
def test_keyframes(write_text, protocol, over):
    truth, samples = noisy(0)
    ann_file = write_text('a.csv', *ava_lines(truth))
    rules = dict(num_classes=4, protocol=protocol, class_average=over)
    metric = FrameMAPMetric(ann_file, score_thr=0, **rules)
    values = score(metric, samples)
    assert 0.01 < values['mAP/overall'] < 0.99
    assert score(metric, shuffled(samples)) == values
    metric = FrameMAPMetric(ann_file, iou_thrs=(0.5, 0.95), **rules)
    assert set(score(metric, predict_truth(truth)).values()) == {1}
    for samples in ([], [predict('v', 1)]):
        assert set(score(metric, samples).values()) == {0}


@pytest.mark.parametrize('over', CLASS_AVERAGES)
@pytest.mark.parametrize(
    'metric_type, options',
    [
        *((TubeFrameMAPMetric, dict(protocol=name)) for name in FRAME_PROTOCOLS),
        *(
            (TubeFrameMAPMetric, dict(nms=nms))
            for nms, rules in FRAME_NMS.items()
            if not rules.over_classes  # a person of two classes has two boxes
        ),
        *(
            (VideoMAPMetric, dict(protocol=name))
            for name, rules in TUBE_PROTOCOLS.items()
            if not rules.remade  # of boxes of several persons
        ),
        *(
            (VideoMAPMetric, dict(linking=name))
            for name, linking in LINKINGS.items()
            if isinstance(linking, Linking)
        ),
    ],
    ids=str,
)
def test_tubes_all_or_nothing(metric_type, options, over):
    # ROAD's boxes and true ones are a pixel apart.
    is_exact = not options.get('protocol', '').startswith('road')
    rules = dict(options, class_average=over, excluded_labels=['jump'])
    rules['iou_thrs'] = (0.5, '0.5:0.95') if is_exact else 0.5
    metric = build(metric_type, TWO_VIDEOS, **rules)
    for value in score(metric, predict_truth(TWO_VIDEOS)).values():
        assert value == pytest.approx(1, abs=metric.protocol.extra_gts)
    for samples in ([], [predict('v', 1)]):
        assert set(score(metric, samples).values()) == {0}


NAMED = [
    *((TubeFrameMAPMetric, name) for name in FRAME_PROTOCOLS),
    *((VideoMAPMetric, name) for name in TUBE_PROTOCOLS),
]


@pytest.mark.parametrize('parts', [1, 10])  # of a pixel
@pytest.mark.parametrize('metric_type, protocol', NAMED)
def test_a_protocol_is_its_record_in_any_order_of_frames(metric_type, protocol, parts):
    truth, samples = untidy(0, parts)
    record = metric_type.protocols[protocol]
    written = record._asdict()
    for name in ('detected_boxes', 'true_boxes'):
        written[name] = written[name]._asdict()
    first, *repeats = (
        score(build(metric_type, truth, protocol=rules), predictions)
        for rules in (protocol, record, dict(written, base='multisports'))
        for predictions in (samples, samples[::-1])
    )
    assert [first] * 5 == repeats
    assert next(iter(first.values())) > 0
    # A class without ground truth has no value, and counts as 0 or not.
    assert not any('nobody' in name for name in first)


@pytest.mark.parametrize('metric_type, protocol', NAMED)
def test_tubes_order_padding_and_ranges(metric_type, protocol):
    truth, samples = noisy(0)
    thrs = [0.5 + 0.05 * i for i in range(10)]
    options = dict(iou_thrs=('0.5:0.95', *thrs), score_thr=0.01, protocol=protocol)
    halved = dict(options, score_thr=0.005)
    if metric_type is VideoMAPMetric:
        options['linking'] = dict(min_length=5)
        halved['linking'] = dict(min_length=5, min_score=0.005)
    aps = score(build(metric_type, truth, **options), samples)
    mean, *single = list(aps.values())[: 1 + len(thrs)]
    assert mean == pytest.approx(np.mean(single), abs=1e-12)
    assert single[0] > mean > 0
    again = score(build(metric_type, truth, **halved), shuffled(samples))
    assert again == pytest.approx(aps, abs=1e-12)


@pytest.mark.parametrize('metric_type', TUBE_METRICS)
def test_predictions_of_no_frame_or_another_dataset_are_refused(metric_type):
    for sample in (predict('v', 0), predict('v', 1.5), predict('unknown', 1)):
        with pytest.raises(UserError):
            score(build(metric_type, TWO_VIDEOS), [sample])
