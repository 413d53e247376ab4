from collections import defaultdict

import numpy as np
import pytest
from mmaction.evaluation.functional import ava_utils
from mmaction.evaluation.functional.ava_evaluation import metrics as ava_metrics
from tube_data import ava_lines, csv_lines, noisy, score

from stmixer_mm.datasets.annotations.label_map import format_label_map
from stmixer_mm.evaluation import FrameMAPMetric


@pytest.fixture
def label_map(write_text):
    return lambda **ids: write_text('map.pbtxt', format_label_map(ids))


def predict(video_id, timestamp, bboxes, scores):
    """A sample as a model gives it, in 32 bits."""
    instances = dict(bboxes=np.float32(bboxes), scores=np.float32(scores))
    return dict(video_id=video_id, timestamp=timestamp, pred_instances=instances)


LEFT, RIGHT, THIN = [0, 0, 0.4, 1], [0.6, 0, 1, 1], [0, 0, 0.4, 0.6]
ROWS = (
    *('v,1,0,0,0.4,1,1,0', 'v,1,0,0,0.4,1,2,0', 'v,1,0.6,0,1,1,1,1'),
    *('v,2.5,0,0,0.4,1,1,0', 'w,1,0,0,0.4,1,2,0'),
)


def test_figures_by_hand(write_text, label_map):
    files = write_text('ann.csv', *ROWS), label_map(sit=1, run=2, jump=3)
    metric = FrameMAPMetric(*files, iou_thrs=(0.5, 0.75))
    samples = [
        predict('v', 1, [LEFT, RIGHT], [[0, 0.9, 0.8, 0.7], [0, 0.8, 0.9, 0]]),
        predict('v', 2.5, [THIN], [[0, 0.7, 0, 0]]),
        predict('w', 1, np.zeros((0, 4)), np.zeros((0, 4))),
        predict('z', 1, [LEFT], [[0, 1, 1, 1]]),  # not annotated
    ]
    # The box that is not annotated scores highest and is false: precisions of 0, 1/2,
    # 2/3, 3/4, and those that follow are at least as high. THIN is too thin for 0.75.
    sit, sit_75, run = 3 / 4, 2 * (2 / 3) / 3, 1 / 3 / 2
    person, person_75 = 3 * (3 / 4) / 4, 2 * (2 / 3) / 4
    assert score(metric, samples) == pytest.approx(
        {
            **{'mAP/overall': (sit + run) / 2, 'mAP/overall@0.75': (sit_75 + run) / 2},
            **{'mAP/person_AP': person, 'mAP/person_AP@0.75': person_75},
            **{'mAP/person_recall': 3 / 4, 'mAP/person_recall@0.75': 2 / 4},
            **{'mAP/sit': sit, 'mAP/run': run},
        }
    )


@pytest.mark.parametrize('protocol, recall', [('ava', 2 / 3), ('mmaction2', 1 / 2)])
def test_persons_count_whatever_they_do(write_text, label_map, protocol, recall):
    alone = 'v,2,0,0,0.4,1,2,0'  # in its keyframe, which mmaction2 leaves out
    rows = 'v,1,0,0,0.4,1,1,0', 'v,1,0.6,0,1,1,2,1', alone
    files = write_text('ann.csv', *rows), label_map(sit=1)
    metric = FrameMAPMetric(*files, num_classes=3, protocol=protocol)
    scores = [[0, 0.9, 0]], [[0, 0, 0.7]]
    samples = [predict('v', time, [LEFT], scores[time - 1]) for time in (1, 2)]
    values = score(metric, samples)
    assert values['mAP/person_recall'] == values['mAP/person_AP'] == recall


def test_keyframes_in_which_detections_count(write_text, label_map):
    ann_file = write_text('ann.csv', 'v,1,0,0,0.4,1,1,0', 'v,2,0,0,0.4,1,2,0')
    key_file = write_text('known.csv', 'v,0003')
    samples = [
        predict('v', 1, [LEFT], [[0, 0.8, 0]]),
        predict('v', 2, [LEFT], [[0, 0.9, 0]]),  # of an action that is not evaluated
        predict('v', 3, [LEFT], [[0, 0.9, 0]]),  # not annotated
        predict('x', 1, [LEFT], [[0, 0.9, 0]]),
    ]
    for arguments, wrong in (
        (dict(), 3),
        (dict(own_videos=True), 2),
        (dict(exclude_file=key_file), 2),
        (dict(protocol='ava2020'), 1),
        (dict(protocol='ava2020', empty_keyframes_file=key_file), 2),
        (dict(protocol='mmaction2'), 0),
        (dict(protocol='mmaction2', empty_keyframes_file=key_file), 1),
    ):
        metric = FrameMAPMetric(ann_file, label_map(sit=1), num_classes=3, **arguments)
        assert score(metric, samples)['mAP/overall'] == 1 / (1 + wrong)


@pytest.mark.parametrize('of_left', [0, 2])
def test_the_higher_person_id_of_two_alike_is_claimed(write_text, of_left):
    ann_file = write_text('ann.csv', f'v,1,0,0,0.5,1,1,{of_left}', 'v,1,0.5,0,1,1,1,1')
    middle = [0.25, 0, 0.75, 1]  # overlaps either by a third
    sample = predict('v', 1, [middle, [0, 0, 0.5, 1]], [[0, 0.9], [0, 0.8]])
    metric = FrameMAPMetric(ann_file, num_classes=2, iou_thrs=(0.3,))
    # The second is right where the first has claimed the other person.
    assert score(metric, [sample])['mAP/class 1'] == (1 / 2 if of_left else 1)


def without_empty_boxes(*fields):
    """Boxes y1, x1, y2, x2, labels and scores of a keyframe, as AVA's evaluator."""
    rows = [
        row
        for row in zip(*fields, strict=True)
        if row[0][0] < row[0][2] and row[0][1] < row[0][3]
    ]
    return [*zip(*rows, strict=True)] if rows else [[]] * len(fields)


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
        detections = [field[key][:limit] for field in (boxes, labels, scores)]
        if protocol != 'mmaction2':
            detections = without_empty_boxes(*detections)
        frame = gts[key], truth_labels.get(key, []), *detections
        frame_scores, frame_right = ava_utils.tpfp_single(frame, threshold)
        for label in frame_scores:
            all_scores[label].append(frame_scores[label])
            all_right[label].append(frame_right[label])
    counts, aps = np.bincount(np.concatenate(list(truth_labels.values()))), {}
    for label in all_scores:
        scores, right = map(np.concatenate, (all_scores[label], all_right[label]))
        curve = ava_metrics.compute_precision_recall(scores, right, counts[label])
        aps[label] = ava_metrics.compute_average_precision(*curve)
    return aps


@pytest.mark.parametrize(
    ('threshold', 'protocol', 'limit'),
    [(0.31, 'mmaction2', None), (0.51, 'ava', 10), (0.51, 'ava2020', 10)],
)
def test_equal_to_published_evaluators(
    write_text, label_map, threshold, protocol, limit
):
    truth, samples = noisy(0, num_labels=6)
    evaluated = range(1, 6)
    lines = [
        line
        for line in ava_lines(truth)
        if not line.startswith('v,10,')  # not annotated
        # Without an action that is evaluated.
        and (line.endswith(',6,0') or not line.startswith('v,14,'))
    ]
    ann_file = write_text('ann.csv', *lines)
    for sample in samples:
        bboxes, scores = map(np.float32, sample['pred_instances'].values())
        bboxes[:1, 2] = bboxes[:1, 0]  # without area
        sample['pred_instances'] = dict(bboxes=bboxes, scores=scores)
    names = label_map(**{f'action {number}': number for number in evaluated})
    rules = dict(score_thr=0.3, iou_thrs=(threshold,), protocol=protocol)
    rules |= dict(num_classes=7, max_actions=limit)
    ours = score(FrameMAPMetric(ann_file, names, **rules), samples)
    det_file = write_text('detections.csv', *csv_lines(samples, above=0.3))
    published = published_class_aps(
        ann_file, det_file, set(evaluated), threshold, protocol, limit
    )
    assert len(published) == len(evaluated)
    assert 0.05 < max(published.values()) < 0.95
    for label, ap in published.items():
        assert ours[f'mAP/action {label}'] == pytest.approx(ap, abs=1e-9)
    assert ours['mAP/overall'] == pytest.approx(np.mean(list(published.values())))
