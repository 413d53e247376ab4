from collections import defaultdict

import numpy as np
import pytest
from mmaction.evaluation.functional import ava_utils
from mmaction.evaluation.functional.ava_evaluation import metrics as ava_metrics
from tube_data import score

from stmixer_mm.errors import UserError
from stmixer_mm.evaluation import FrameMAPMetric


@pytest.fixture
def label_map(write_text):
    def write(**names):
        items = (
            ('item {', f'  name: "{name}"', f'  id: {number}', '}')
            for name, number in names.items()
        )
        return write_text('map.pbtxt', *(line for item in items for line in item))

    return write


def predict(video_id, timestamp, bboxes, scores):
    """A sample as a model gives it, in 32 bits."""
    found = dict(
        bboxes=np.reshape(np.float32(bboxes), (-1, 4)), scores=np.float32(scores)
    )
    if not len(scores):
        found['scores'] = np.zeros((0, 4), np.float32)
    return dict(video_id=video_id, timestamp=timestamp, pred_instances=found)


def evaluate(metric, *samples):
    return score(metric, samples)


SIT = [0, 0.9, 0, 0]
LEFT, RIGHT, THIN = [0, 0, 0.4, 1], [0.6, 0, 1, 1], [0, 0, 0.4, 0.6]


@pytest.fixture
def literal(write_text, label_map):
    """Arguments of three keyframes: two persons, one person, one person."""
    ann_file = write_text(
        'ann.csv',
        'v,1,0,0,0.4,1,1,0',
        'v,1,0,0,0.4,1,2,0',
        'v,1,0.6,0,1,1,1,1',
        'v,2.5,0,0,0.4,1,1,0',
        'w,1,0,0,0.4,1,2,0',
    )
    labels = label_map(sit=1, run=2, jump=3)
    return dict(ann_file=ann_file, label_file=labels, num_classes=4)


@pytest.mark.parametrize('protocol', ['ava', 'mmaction2'])
def test_figures_by_hand(literal, protocol):
    values = evaluate(
        FrameMAPMetric(**literal, iou_thrs=(0.5, 0.75), protocol=protocol),
        predict('v', 1, [LEFT, RIGHT], [[0, 0.9, 0.8, 0.7], [0, 0.8, 0.9, 0]]),
        predict('v', 2.5, [THIN], [[0, 0.7, 0, 0]]),
        predict('w', 1, [], []),
        predict('z', 1, [LEFT], [[0, 1, 1, 1]]),  # not annotated
    )
    if protocol == 'mmaction2':
        sit = 1  # three of three, in front of nothing false
        sit_75 = 2 / 3  # THIN is the last one and too thin
        run = 1 / 4  # of two one, after a false one
        person = (1 + 1 + 1 + 0) / 4  # LEFT and RIGHT at .9, THIN at .7, one not found
        person_75 = 2 / 4
    else:
        # The box that is not annotated scores highest and is false: precisions of 0,
        # 1/2, 2/3, 3/4, and those that follow are at least as high.
        sit, sit_75 = 3 / 4, 2 * (2 / 3) / 3
        run = 1 / 3 / 2
        person, person_75 = 3 * (3 / 4) / 4, 2 * (2 / 3) / 4
    assert values == pytest.approx(
        {
            'mAP/overall': (sit + run) / 2,
            'mAP/overall@0.75': (sit_75 + run) / 2,
            'mAP/person_AP': person,
            'mAP/person_AP@0.75': person_75,
            'mAP/person_recall': 3 / 4,
            'mAP/person_recall@0.75': 2 / 4,
            'mAP/sit': sit,
            'mAP/run': run,
        }
    )


@pytest.mark.parametrize('protocol, recall', [('ava', 2 / 3), ('mmaction2', 1 / 2)])
def test_persons_count_whatever_they_do(write_text, label_map, protocol, recall):
    ann_file = write_text(
        'ann.csv',
        'v,1,0,0,0.4,1,1,0',
        'v,1,0.6,0,1,1,2,1',
        'v,2,0,0,0.4,1,2,0',  # alone in its keyframe, which mmaction2 leaves out
        'w,1,0,0,0.4,1,1,0',  # excluded
    )
    options = dict(
        label_file=label_map(sit=1),
        exclude_file=write_text('excluded.csv', 'w,1'),
        num_classes=3,
        protocol=protocol,
    )
    samples = [
        predict('v', 1, [LEFT, RIGHT], [[0, 0.9, 0], [0, 0, 0.8]]),
        predict('v', 2, [LEFT], [[0, 0, 0.7]]),
        predict('w', 1, [THIN], [[0, 1, 1]]),
    ]
    values = evaluate(FrameMAPMetric(ann_file, **options), *samples)
    assert set(values.values()) == {1}
    samples[0] = predict('v', 1, [LEFT], [[0, 0.9, 0]])
    values = evaluate(FrameMAPMetric(ann_file, **options), *samples)
    assert values['mAP/person_recall'] == values['mAP/person_AP'] == recall


def test_other_areas_and_other_means_by_name(literal):
    samples = [
        predict('v', 1, [RIGHT, LEFT], [[0, 0.9, 0.95, 0], [0, 0, 0.9, 0]]),
        predict('v', 2.5, [THIN], [[0, 0.7, 0, 0]]),
    ]
    # sit: two right of three. run: a wrong one before the right one, of two.
    values = evaluate(FrameMAPMetric(**literal, ap_mode='act'), *samples)
    assert values['mAP/sit'] == pytest.approx(2 / 3)
    assert values['mAP/run'] == pytest.approx((0 + 1 / 2) / 2 / 2)
    samples = [predict('v', 1, [LEFT], [[0, 0.9, 0, 0]])]
    by_protocol = {
        name: evaluate(FrameMAPMetric(**literal, protocol=name), *samples)
        for name in ('ava', 'mmaction2')
    }
    assert by_protocol['ava']['mAP/overall'] == pytest.approx(1 / 3 / 2)
    assert by_protocol['mmaction2']['mAP/overall'] == pytest.approx(1 / 3)
    for over, divisor in (('gt', 2), ('detected', 1), ('all', 3)):
        values = evaluate(FrameMAPMetric(**literal, class_average=over), *samples)
        assert values['mAP/overall'] == pytest.approx(1 / 3 / divisor)


def test_false_detections_in_person_free_keyframes(literal, write_text):
    samples = [
        predict('v', 1, [LEFT, RIGHT], [[0, 0.9, 0.9, 0], [0, 0.9, 0, 0]]),
        predict('v', 2.5, [LEFT], [[0, 0.9, 0, 0]]),
        predict('w', 1, [LEFT], [[0, 0, 0.9, 0]]),
        predict('v', 9, [LEFT], [[0, 0.95, 0, 0]]),
    ]
    empty = write_text('empty.csv', 'v,0009')
    for arguments, sit in (
        (dict(), 3 / 4),
        (dict(exclude_file=empty), 1),
        (dict(protocol='mmaction2'), 1),
        (dict(protocol='mmaction2', empty_keyframes_file=empty), 3 / 4),
    ):
        metric = FrameMAPMetric(**literal, **arguments)
        assert evaluate(metric, *samples)['mAP/sit'] == sit


def test_keyframes_in_which_detections_count(write_text, label_map):
    ann_file = write_text('ann.csv', 'v,1,0,0,0.4,1,1,0', 'v,2,0,0,0.4,1,2,0')
    right = predict('v', 1, [LEFT], [[0, 0.8, 0]])
    named = predict('v', 2, [LEFT], [[0, 0.9, 0]])  # of an action that is not evaluated
    other = predict('v', 3, [LEFT], [[0, 0.9, 0]])
    for protocol, of_named, of_other in (
        ('ava', 1 / 2, 1 / 2),
        ('ava2020', 1 / 2, 1),
        ('mmaction2', 1, 1),
    ):
        metric = FrameMAPMetric(
            ann_file, label_map(sit=1), num_classes=3, protocol=protocol
        )
        assert evaluate(metric, right)['mAP/overall'] == 1
        assert evaluate(metric, right, named)['mAP/overall'] == of_named
        assert evaluate(metric, right, other)['mAP/overall'] == of_other


def test_boxes_without_area_are_wrong_or_do_not_count(literal):
    line = [0.2, 0, 0.2, 1]
    samples = [
        predict('v', 1, [line, LEFT, RIGHT], [[0, 1, 0, 0], [0, 0.9, 0.9, 0], SIT]),
        predict('v', 2.5, [LEFT], [SIT]),
        predict('w', 1, [LEFT], [[0, 0, 0.9, 0]]),
    ]
    for protocol, sit, person in (('ava', 1, 1), ('mmaction2', 3 / 4, 4 / 5)):
        values = evaluate(FrameMAPMetric(**literal, protocol=protocol), *samples)
        assert (values['mAP/sit'], values['mAP/run']) == (sit, 1)
        assert values['mAP/person_AP'] == pytest.approx(person)


@pytest.mark.parametrize('of_left', [0, 2])
def test_the_higher_person_id_of_two_alike_is_claimed(write_text, of_left):
    ann_file = write_text('ann.csv', f'v,1,0,0,0.5,1,1,{of_left}', 'v,1,0.5,0,1,1,1,1')
    both = [0.25, 0, 0.75, 1]  # overlaps either by a third
    values = evaluate(
        FrameMAPMetric(ann_file, num_classes=2, iou_thrs=(0.3,)),
        predict('v', 1, [both, [0, 0, 0.5, 1]], [[0, 0.9], [0, 0.8]]),
    )
    # The second is right where the first has claimed the other person.
    assert values['mAP/class 1'] == (1 / 2 if of_left else 1)


def test_the_best_actions_of_a_keyframe_count(literal, label_map):
    # Of the five actions of (v, 1), run of LEFT is the fourth and sit of RIGHT the
    # fifth, after two of jump, which has no ground truth but takes its places.
    samples = [
        predict('v', 1, [LEFT, RIGHT], [[0, 0.9, 0.6, 0.8], [0, 0.5, 0, 0.7]]),
        predict('v', 2.5, [LEFT], [SIT]),
        predict('w', 1, [LEFT], [[0, 0, 0.1, 0]]),
    ]
    for limit, sit, run in ((None, 1, 1), (5, 1, 1), (4, 2 / 3, 1), (3, 2 / 3, 1 / 2)):
        values = evaluate(FrameMAPMetric(**literal, max_actions=limit), *samples)
        assert (values['mAP/sit'], values['mAP/run']) == pytest.approx((sit, run))
    # An action that the label file lacks takes no place.
    literal['label_file'] = label_map(sit=1, run=2)
    for limit, sit, run in ((3, 1, 1), (2, 2 / 3, 1), (1, 2 / 3, 1 / 2)):
        values = evaluate(FrameMAPMetric(**literal, max_actions=limit), *samples)
        assert (values['mAP/sit'], values['mAP/run']) == pytest.approx((sit, run))


def test_excluded_keyframes_count_neither_way(literal, write_text):
    metric = FrameMAPMetric(
        **literal, exclude_file=write_text('exclude.csv', 'v,1', 'w,0001')
    )
    values = evaluate(
        metric,
        predict('v', 1, [[0.4, 0, 0.6, 1]], [[0, 1, 1, 1]]),
        predict('v', 2.5, [LEFT], [[0, 0.9, 0, 0]]),
    )
    assert values['mAP/overall'] == values['mAP/sit'] == 1
    assert 'mAP/run' not in values


def test_the_label_file_says_how_many_classes(literal, label_map, tmp_path):
    del literal['num_classes']
    assert FrameMAPMetric(**literal).num_classes == 4
    assert FrameMAPMetric(**literal, custom_classes=[2, 1]).num_classes == 3
    # Of AVA's 80 actions 60 are evaluated.
    literal['label_file'] = label_map(sit=1, run=80)
    assert FrameMAPMetric(**literal).num_classes == 81
    names = dict(ann_file='ann.csv', label_file='map.pbtxt', data_root=str(tmp_path))
    assert FrameMAPMetric(**names).num_classes == 81
    with pytest.raises(UserError):
        FrameMAPMetric(literal['ann_file'])


def test_custom_classes_name_the_score_columns(literal):
    literal.update(custom_classes=[2, 1], num_classes=3)
    values = evaluate(
        FrameMAPMetric(**literal),
        predict('v', 1, [LEFT], [[0, 0.9, 0]]),
        predict('w', 1, [LEFT], [[0, 0.9, 0]]),
    )
    assert (values['mAP/run'], values['mAP/sit']) == (1, 0)


@pytest.mark.parametrize(
    'options',
    [
        dict(iou_thrs=(50,)),
        dict(ap_mode='voc'),
        dict(protocol='act'),
        dict(class_average='some'),
        dict(exclude_file=['v,1', 'v,2.5', 'w,1']),
        dict(ann_file=['v,1']),
        dict(label_file=['item { name: "overall" id: 1 }']),
    ],
    ids=str,
)
def test_faulty_arguments(literal, write_text, options):
    for name, value in options.items():
        if name.endswith('_file'):
            options = {name: write_text('file.csv', *value)}
    with pytest.raises(UserError):
        FrameMAPMetric(**literal | options)


@pytest.mark.parametrize(
    'sample',
    [
        predict('v', 1, [LEFT], [[0, 0.9]]),
        predict('v', 1, [LEFT], [[np.nan] * 4]),
        predict('v', 1, [[np.nan] * 4], [SIT]),
        predict('v', 1, [LEFT], [[0, np.inf, 0, 0]]),
        predict('z', 1, [LEFT], [SIT]),  # of another dataset
    ],
    ids=['classes', 'scores', 'boxes', 'infinite', 'dataset'],
)
def test_faulty_predictions(literal, sample):
    with pytest.raises(UserError):
        evaluate(FrameMAPMetric(**literal), sample)


def without_empty_boxes(*fields):
    """Boxes y1, x1, y2, x2, labels and scores of a keyframe, as AVA's evaluator."""
    kept = [
        number
        for number, (y1, x1, y2, x2) in enumerate(fields[0])
        if y1 < y2 and x1 < x2
    ]
    return [[field[number] for number in kept] for field in fields]


def published_class_aps(ann_file, det_file, class_ids, threshold, protocol, limit):
    """The host's evaluation, without its pool of processes, or AVA's."""
    with open(ann_file) as file:
        gts, truth_labels, _ = ava_utils.read_csv(file, class_ids)
    with open(ann_file) as file:
        named, _, _ = ava_utils.read_csv(file)
    with open(det_file) as file:
        boxes, labels, scores = ava_utils.read_csv(file, class_ids)
    all_scores, all_right = defaultdict(list), defaultdict(list)
    keys = {'ava': {**named, **boxes}, 'ava2020': named, 'mmaction2': gts}[protocol]
    for key in keys:
        # The host has sorted them by score.
        found = [field[key][:limit] for field in (boxes, labels, scores)]
        if protocol != 'mmaction2':
            found = without_empty_boxes(*found)
        frame = gts[key], truth_labels.get(key, []), *found
        frame_scores, frame_right = ava_utils.tpfp_single(frame, threshold)
        for label in frame_scores:
            all_scores[label].append(frame_scores[label])
            all_right[label].append(frame_right[label])
    counts = np.bincount(np.concatenate(list(truth_labels.values())))
    return {
        label: ava_metrics.compute_average_precision(
            *ava_metrics.compute_precision_recall(
                np.concatenate(all_scores[label]),
                np.concatenate(all_right[label]),
                counts[label],
            )
        )
        for label in all_scores
    }


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize(
    ('threshold', 'protocol', 'limit'),
    [
        (0.5, 'mmaction2', None),
        (0.3, 'mmaction2', None),
        (0.5, 'ava', 20),
        (0.5, 'ava2020', 20),
    ],
)
def test_equal_to_published_evaluators(
    write_text, label_map, seed, threshold, protocol, limit
):
    random = np.random.RandomState(seed)
    num_actions, evaluated = 6, range(1, 6)
    truth_lines, detection_lines, samples = [], [], []

    def line(timestamp, bbox, *rest):
        numbers = ','.join(repr(float(value)) for value in bbox)
        return f'v,{timestamp:04d},{numbers},' + ','.join(map(repr, rest))

    for timestamp in range(902, 922):
        gts = np.sort(random.rand(3, 2, 2), axis=1).reshape(3, 4)
        for person, bbox in enumerate(gts):
            actions = random.choice(num_actions, 2, replace=False) + 1
            if timestamp == 910:
                continue
            if timestamp == 911:
                actions = [num_actions]  # which is not evaluated
            truth_lines += [line(timestamp, bbox, int(a), person) for a in actions]
        near = np.repeat(gts, 2, axis=0) + random.normal(0, 0.05, (6, 4))
        upright = np.sort(near.reshape(6, 2, 2), axis=1).reshape(6, 4)
        bboxes = upright.clip(0, 1).astype(np.float32)
        scores = random.rand(6, num_actions + 1).astype(np.float32)
        scores[:, 0] = 0
        detection_lines += [
            line(timestamp, bbox, action, float(score[action]))
            for bbox, score in zip(bboxes, scores, strict=True)
            for action in range(1, num_actions + 1)
            if score[action] > 0.3
        ]
        samples.append(predict('v', timestamp, bboxes, scores))
    ann_file = write_text('ann.csv', *truth_lines)
    metric = FrameMAPMetric(
        ann_file,
        label_map(**{f'action {number}': number for number in evaluated}),
        num_classes=num_actions + 1,
        score_thr=0.3,
        iou_thrs=(threshold,),
        protocol=protocol,
        max_actions=limit,
    )
    ours = evaluate(metric, *samples)
    published = published_class_aps(
        ann_file,
        write_text('detections.csv', *detection_lines),
        set(evaluated),
        threshold,
        protocol,
        limit,
    )
    assert len(published) == len(evaluated)
    assert max(published.values()) > 0.05
    for label, ap in published.items():
        assert ours[f'mAP/action {label}'] == pytest.approx(ap, abs=1e-9)
    assert ours['mAP/overall'] == pytest.approx(np.mean(list(published.values())))
