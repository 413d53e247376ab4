import literal_act
import numpy as np
import pytest
from tube_data import (
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    build,
    frame_detections,
    ground_truth,
    linked,
    noisy,
    predict,
    predict_truth,
    score,
    still,
)

from stmixer_mm.evaluation import TubeFrameMAPMetric, VideoMAPMetric
from stmixer_mm.evaluation.functional import matching
from stmixer_mm.evaluation.functional.linking import parse_linking
from stmixer_mm.projects import published  # noqa: F401 - protocols

TRUE, HALF = [10, 10, 29, 29], [10, 10, 19, 29]
EXAMPLES = (  # true tubes, and detections as (frame, box, score)
    ([still(1, 2, TRUE)], [(3, TRUE, 0.9), (1, TRUE, 0.8)]),
    ([still(1, 2, TRUE)], [(1, HALF, 0.9), (2, TRUE, 0.8)]),
    (
        [still(1, 1, TRUE), still(1, 1, [14, 10, 33, 29])],
        [(1, TRUE, 0.9), (1, [11, 10, 30, 29], 0.8)],
    ),
    ([still(1, 1, TRUE), still(1, 1, [100, 100, 149, 149])], [(1, TRUE, 0.9)]),
)


@pytest.mark.parametrize(
    'protocol, values',
    [
        ('act', (0.125, 1, 1)),
        (dict(base='moc', frames='annotated'), (0.5, 1, 1)),
        ('multisports', (0.25, 0.25, 0.5, 0.5)),
        ('road_python', (0.25, 0.25, 1)),
        ('road_matlab', (0.25, 1, 0.5)),
        ('retina', (0.125, 0.125, 1)),
        ('yowo', (0.5, 1, 0.5)),
        (dict(base='yowov2', drop_last_frame=True), (1, 1)),
        ('yowoformer', (1, 0.375, 0.625, 0.75)),
        ('tuber', (0.5, 0.25, 0.5)),
    ],
)
def test_examples_with_the_values_of_published_scripts(protocol, values):
    for (tubes, detections), value in zip(EXAMPLES, values, strict=False):
        persons = {1: [], 2: [], 3: []}
        for frame, box, person_score in detections:
            persons[frame].append((box, {0: person_score}))
        samples = [predict('v', frame, *persons[frame]) for frame in persons]
        truth = ground_truth({'v': {0: tubes}}, nframes=3)
        for over, share in (('gt', 1), ('all', 1 / 3)):  # of three labels
            rules = dict(protocol=protocol, class_average=over)
            values_of_frames = score(build(TubeFrameMAPMetric, truth, **rules), samples)
            overall = values_of_frames['frame_mAP/overall@0.5']
            assert overall == pytest.approx(share * value)


def test_choices_of_boxes_and_frames():
    tubes, small = [still(1, 4, TRUE), still(3, 3, RIGHT)], still(2, 2, [0, 0, 3, 3])
    truth = ground_truth({'v': {0: tubes, 1: [small]}})
    two_classes = {0: 0.5, 1: 0.3}
    samples = [
        predict('v', 1, (TRUE, two_classes)),
        predict('v', 2, (TRUE, {0: 0.9})),
        predict('v', 3, (TRUE, {0: 0.2})),
    ]
    # Of boxes in frames 1 to 4 and another in frame 3:
    for changes, ap in (
        (dict(), 3 / 5),
        # the second class of the first box is a false one before the last,
        (dict(classes='mislabelled'), (2 + 3 / 4) / 5),
        # the one of frame 2 is not found, as a small one is there,
        (dict(classes='best', least_area=10), 2 / 5),
        (dict(every=2, frames='annotated'), 2 / 3),  # frames 1 and 3 count,
        (dict(skip_silent_frames=True), 3 / 4),  # frames 1, 2 and 3.
    ):
        metric = build(
            TubeFrameMAPMetric, truth, protocol=dict(base='multisports', **changes)
        )
        assert score(metric, samples)['frame_mAP/run@0.5'] == pytest.approx(ap)


def test_pixels_by_which_road_is_off():
    truth = ground_truth({'v': {0: [still(1, 20, TRUE)]}})
    for metric_type, protocol, thrs in (
        (TubeFrameMAPMetric, 'road_matlab', (0.9025, 0.903)),
        (VideoMAPMetric, 'road', (0.741, 0.742)),
    ):
        options = dict(class_average='gt', protocol=protocol, iou_thrs=thrs)
        values = score(build(metric_type, truth, **options), predict_truth(truth))
        assert [*values.values()][:2] == [1, 0]


@pytest.mark.parametrize(
    'protocol, at_half',
    [
        ('act', (0, 1, 0)),
        ('multisports', (0, 0, 0)),
        ('retina', (0, 0, 0)),  # its truth is a pixel narrower than twice the half
        (dict(base='retina', size=None, true_boxes={}), (0, 1, 0)),
        ('road', (0, 0, 0)),
        (dict(exceed=True), (0, 0, 0)),
    ],
)
def test_examples_of_tubes(protocol, at_half):
    truth = ground_truth({'v': {0: [still(1, 20, TRUE)]}})
    predicted_tubes = still(11, 30, TRUE), still(1, 20, HALF), still(20, 39, TRUE)
    for tube, low, half in zip(predicted_tubes, (1, 1, 0), at_half, strict=True):
        metric = build(VideoMAPMetric, truth, protocol=protocol, class_average='gt')
        values = score(metric, [linked('v', (0, 0.9, tube))])
        assert values['video_mAP/overall@0.2'] == low
        assert values['video_mAP/overall@0.5'] == half


def retina_box(box, less):
    """``get_box`` of 3D-RetinaNet, in a picture of WIDTH x HEIGHT."""
    x1, y1, x2, y2 = box
    shares = x1 / WIDTH, y1 / HEIGHT, (x2 - less) / WIDTH, (y2 - less) / HEIGHT
    return [share * side for share, side in zip(shares, (682, 512) * 2, strict=True)]


@pytest.mark.parametrize('thr', [0.6, 0.65, 0.7])
def test_tubes_of_retina_are_those_of_the_loops(thr):
    """Truth a pixel narrower; boxes measure x2 - x1 + 1 in pictures of 682x512."""
    random = np.random.RandomState(0)
    gttubes, samples, true, tubes = {}, [], {}, []
    for name in map(str, range(60)):
        low, value = random.randint(2, 50, 2), random.rand()
        box = np.array([*low, *(low + random.randint(8, 20, 2))])
        near = box + random.randint(-2, 2, 4)
        gttubes[name] = {0: [still(1, 20, box)]}
        samples.append(linked(name, (0, value, still(1, 20, near))))
        true[name] = [still(1, 20, retina_box(box, 1))]
        tubes.append((name, value, still(1, 20, retina_box(near, 0))))
    rules = dict(class_average='gt', iou_thrs=thr, protocol='retina')
    values = score(build(VideoMAPMetric, ground_truth(gttubes), **rules), samples)
    expected = literal_act.ap('act', tubes, true, thr, tubes=True)
    ap = values[f'video_mAP/overall@{thr}']
    assert 0.05 < ap < 0.95 and ap == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize('protocol', ['act', 'multisports'])
def test_values_are_those_of_the_published_loops(protocol, monkeypatch):
    monkeypatch.setattr(matching, '_PAIRS_AT_ONCE', 1)
    truth, samples = noisy(0)
    rules = dict(protocol=protocol)
    values = score(build(TubeFrameMAPMetric, truth, iou_thrs=(0.7,), **rules), samples)
    rules['linking'] = options = dict(min_length=5, tube_nms_iou=None, end_after=1)
    values |= score(build(VideoMAPMetric, truth, iou_thrs=(0.3,), **rules), samples)
    for label in range(3):
        boxes = {}
        for name, classes in truth['gttubes'].items():
            for row in np.concatenate(classes[label]):
                boxes.setdefault((name, int(row[0])), []).append(row[1:])
        detections = frame_detections(samples, label)
        expected = literal_act.ap(protocol, detections, boxes, 0.7)
        ap = values[f'frame_mAP/class {label}@0.7']
        assert 0.05 < ap < 0.95 and ap == pytest.approx(expected, abs=1e-9)

        clips = {(name, t): [] for name in truth['gttubes'] for t in range(1, 41)}
        for (name, frame), value, box in detections:
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
        ap = values[f'video_mAP/class {label}@0.3']
        assert 0.05 < ap < 0.95 and ap == pytest.approx(expected, abs=1e-9)


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
        # Over all classes .8 and .7 go with their box, and .6, an overlap of 0.5, only
        # by YOWO's 0.4.
        ('yowo', 1),
        ('retina', (1 + (1 / 2 + 2 / 3) / 2) / 2),
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
    sit = 1 if nms in ('yowo', 'retina') else (0 + 1 / 2) / 2
    expected = dict(overall=(run + sit) / 2, run=run, sit=sit)
    assert values == {
        f'frame_mAP/{name}@0.5': pytest.approx(ap) for name, ap in expected.items()
    }
