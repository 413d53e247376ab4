import literal_act
import numpy as np
import pytest
from tube_data import (
    LEFT,
    RIGHT,
    build,
    frame_detections,
    ground_truth,
    linked,
    noisy,
    predict,
    score,
    still,
)

from stmixer_mm.evaluation import TubeFrameMAPMetric, VideoMAPMetric
from stmixer_mm.evaluation.functional import matching
from stmixer_mm.evaluation.functional.linking import parse_linking

TRUE, HALF = [10, 10, 29, 29], [10, 10, 19, 29]
EXAMPLES = (  # ground truth and detections as (frame, box) and (frame, box, score)
    ([(1, TRUE), (2, TRUE)], [(3, TRUE, 0.9), (1, TRUE, 0.8)]),
    ([(1, TRUE), (2, TRUE)], [(1, HALF, 0.9), (2, TRUE, 0.8)]),
    (
        [(1, TRUE), (1, [14, 10, 33, 29])],
        [(1, TRUE, 0.9), (1, [11, 10, 30, 29], 0.8)],
    ),
)


@pytest.mark.parametrize(
    'protocol, frames, values',
    [
        ('act', 'all', (0.125, 1, 1)),
        ('act', 'annotated', (0.5, 1, 1)),
        ('multisports', 'all', (0.25, 0.25, 0.5)),
        ('multisports', 'annotated', (0.5, 0.25, 0.5)),  # also TubeR's
    ],
)
def test_examples_with_the_values_of_published_scripts(protocol, frames, values):
    for (boxes, found), value in zip(EXAMPLES, values, strict=True):
        tubes = [still(frame, frame, box) for frame, box in boxes]
        samples = [
            predict('v', t, *((box, {0: score}) for f, box, score in found if f == t))
            for t in (1, 2, 3)
        ]
        for over, share in (('gt', 1), ('all', 1 / 3)):  # of three labels
            metric = build(
                TubeFrameMAPMetric,
                ground_truth({'v': {0: tubes}}, nframes=3),
                protocol=protocol,
                frames=frames,
                class_average=over,
            )
            overall = score(metric, samples)['frame_mAP/overall@0.5']
            assert overall == pytest.approx(share * value)


@pytest.mark.parametrize(
    'protocol, at_half', [('act', (0, 1, 0)), ('multisports', (0, 0, 0))]
)
def test_examples_of_tubes(protocol, at_half):
    truth = ground_truth({'v': {0: [still(1, 20, TRUE)]}})
    found = still(11, 30, TRUE), still(1, 20, HALF), still(20, 39, TRUE)
    for tube, low, half in zip(found, (1, 1, 0), at_half, strict=True):
        metric = build(VideoMAPMetric, truth, protocol=protocol)
        values = score(metric, [linked('v', (0, 0.9, tube))])
        assert values['video_mAP/overall@0.2'] == low
        assert values['video_mAP/overall@0.5'] == half


@pytest.mark.parametrize('protocol', ['act', 'multisports'])
def test_frame_map_is_that_of_the_published_loops(protocol, monkeypatch):
    monkeypatch.setattr(matching, '_PAIRS_AT_ONCE', 1)
    truth, samples = noisy(0)
    metric = build(TubeFrameMAPMetric, truth, protocol=protocol, iou_thrs=(0.7,))
    values = score(metric, samples)
    for label in range(3):
        boxes = {}
        for name, classes in truth['gttubes'].items():
            for row in np.concatenate(classes[label]):
                boxes.setdefault((name, int(row[0])), []).append(row[1:])
        expected = literal_act.ap(
            protocol, frame_detections(samples, label), boxes, 0.7
        )
        found = values[f'frame_mAP/class {label}@0.7']
        assert found == pytest.approx(expected, abs=1e-9)
        assert 0.05 < found < 0.95


@pytest.mark.parametrize('protocol', ['act', 'multisports'])
def test_video_map_is_that_of_the_published_loops(protocol):
    truth, samples = noisy(0)
    options = dict(min_length=5, tube_nms_iou=None, end_after=1)
    metric = build(
        VideoMAPMetric, truth, protocol=protocol, iou_thrs=(0.3,), linking=options
    )
    values = score(metric, samples)
    for label in range(3):
        clips = {(name, t): [] for name in truth['gttubes'] for t in range(1, 41)}
        for (name, frame), value, box in frame_detections(samples, label):
            clips[name, frame].append((value, {frame: tuple(box)}))
        tubes = []
        for name in truth['gttubes']:
            of_video = [(t, clips[name, t]) for t in range(1, 41)]
            for tube in literal_act.link_tubelets(of_video, parse_linking(options)):
                rows = [(t, *box) for _, boxes in tube for t, box in boxes.items()]
                if len(rows) >= 5:
                    tubes.append((name, np.mean([value for value, _ in tube]), rows))
        true = {name: classes[label] for name, classes in truth['gttubes'].items()}
        expected = literal_act.ap(protocol, tubes, true, 0.3, tubes=True)
        found = values[f'video_mAP/class {label}@0.3']
        assert found == pytest.approx(expected, abs=1e-9)
        assert 0.05 < found < 0.95


@pytest.mark.parametrize(
    'nms, run',
    [
        # Right, wrong, wrong, right, wrong.
        (None, (1 + (1 / 3 + 2 / 4) / 2) / 2),
        # The two wrong ones go, as they overlap a better one by more than 0.3; that of
        # sit, .7, stays, and so does the last, elsewhere.
        ('act', 1),
        # .8 falls to .8 * (1 - 4 / 5) = .16, below all others; .6 stays.
        ('moc', (1 + (1 / 2 + 2 / 3) / 2) / 2),
    ],
)
def test_frame_map_and_suppression_before_it_by_hand(nms, run):
    truth = ground_truth({'v': {0: [still(1, 2, LEFT)], 1: [still(2, 2, RIGHT)]}})
    most, half = [0, 0, 49, 79], [0, 0, 49, 49]  # IoU of 4 / 5 and 1 / 2 with LEFT
    samples = [
        predict('v', 1, (LEFT, {0: 0.9}), (most, {0: 0.8, 1: 0.7}), (half, {0: 0.6})),
        predict('v', 2, (LEFT, {0: 0.5}), (RIGHT, {0: 0.4, 1: 0.6})),
        predict('v', 3, (LEFT, {2: 0.9})),  # of a label without ground truth
        predict('v', 10**9, (LEFT, {0: 1})),  # beyond the end
        predict('unknown', 1, (LEFT, {0: 1})),
    ]
    values = score(build(TubeFrameMAPMetric, truth, nms=nms), samples)
    sit = (0 + 1 / 2) / 2
    assert values == pytest.approx(
        {
            'frame_mAP/overall@0.5': (run + sit) / 2,
            'frame_mAP/run@0.5': run,
            'frame_mAP/sit@0.5': sit,
        }
    )
