import itertools
from copy import deepcopy

import literal_act
import numpy as np
import pytest
from tube_data import build, frame_detections, linked, noisy, still

from stmixer_mm.evaluation import TubeFrameMAPMetric, VideoMAPMetric
from stmixer_mm.projects import published  # noqa: F401 - protocols
from stmixer_mm.projects.diagnosis import error_types


def evaluate(metric_type, truth, samples, **options):
    """Shares by label, and values of the metric."""
    metric = build(metric_type, truth, **options)
    metric.process(None, samples)
    shares = error_types.error_shares(
        metric, metric.detections(deepcopy(metric.results))
    )
    return shares, metric.evaluate(len(samples))


def test_errors_of_boxes_are_those_of_moc():
    truth, samples = noisy(1)
    del truth['gttubes']['w'][0]  # nobody does class 0 in w
    shares, values = evaluate(TubeFrameMAPMetric, truth, samples, iou_thrs=(0.7,))
    all_kinds = set()
    for label in range(3):
        detections = frame_detections(samples, label)
        kinds = literal_act.error_kinds(detections, truth['gttubes'], label, 0.7)
        all_kinds |= {*kinds}
        tubes = (tubes.get(label, []) for tubes in truth['gttubes'].values())
        num_gts = sum(map(len, itertools.chain(*tubes)))
        ours = shares[f'class {label}']
        for kind in error_types.BOX_ERRORS:
            expected = literal_act.share_of_kind(kinds, kind, num_gts)
            assert ours[kind] == pytest.approx(expected, abs=1e-9)
        assert ours['ap'] == values[f'frame_mAP/class {label}@0.7']
        assert sum(ours.values()) == pytest.approx(1, abs=1e-12)
    assert len(all_kinds) == 5
    # Suppressed boxes have no errors.
    shares, values = evaluate(TubeFrameMAPMetric, truth, samples, nms='moc')
    mean = error_types.error_rows(shares)[-1]
    assert mean[1] == pytest.approx(values['frame_mAP/overall@0.5'])


@pytest.mark.parametrize('protocol', ['act', 'multisports'])
def test_errors_of_tubes_are_those_of_multisports(protocol):
    truth, _ = noisy(0)
    random = np.random.RandomState(0)
    detections = {name: [] for name in truth['gttubes']}
    for name, classes in truth['gttubes'].items():
        far = still(1, 30, [150, 0, 190, 9])
        for tube in (*itertools.chain(*classes.values()), far):
            for _ in range(12):
                start = random.randint(0, len(tube) - 2)
                part = tube[start : start + random.randint(2, 30)].copy()
                part[:, 1:] += np.tile(random.randint(-12, 13, 2), 2)
                detections[name].append((random.randint(3), random.rand(), part))
    samples = [linked(name, *tubes) for name, tubes in detections.items()]
    options = dict(protocol=protocol, iou_thrs=(0.3,))
    shares, values = evaluate(VideoMAPMetric, truth, samples, **options)
    all_kinds = set()
    for label in range(3):
        tubes = [
            (name, score, tube)
            for name in detections
            for number, score, tube in detections[name]
            if number == label
        ]
        options = truth['gttubes'], label, 0.3, protocol
        kinds = literal_act.tube_error_kinds(tubes, *options)
        all_kinds |= {*kinds}
        ours = shares[f'class {label}']
        for kind in error_types.TUBE_ERRORS:
            expected = literal_act.share_of_kind(kinds, kind, 6, protocol)
            assert ours[kind] == pytest.approx(expected, abs=1e-9)
        assert ours['missed'] == pytest.approx(1 - kinds.count('right') / 6)
        true = {name: classes[label] for name, classes in truth['gttubes'].items()}
        expected = literal_act.ap(protocol, tubes, true, 0.3, tubes=True)
        assert ours['ap'] == values[f'video_mAP/class {label}@0.3']
        assert ours['ap'] == pytest.approx(expected, abs=1e-9)
    assert len(all_kinds) == 10
