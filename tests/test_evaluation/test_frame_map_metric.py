from collections import defaultdict

import numpy as np
import pytest
import torch
from mmaction.evaluation.functional import ava_utils
from mmaction.evaluation.functional.ava_evaluation import metrics as ava_metrics
from mmaction.registry import METRICS
from mmaction.structures import ActionDataSample
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

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
    """A data sample as the detector leaves it."""
    num_classes = len(scores[0]) if len(scores) else 4
    instances = InstanceData(
        bboxes=torch.tensor(bboxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores, dtype=torch.float32).reshape(-1, num_classes),
    )
    sample = ActionDataSample(metainfo=dict(video_id=video_id, timestamp=timestamp))
    sample.pred_instances = instances
    return sample


def evaluate(metric, *samples):
    evaluator = Evaluator(metric)
    for sample in samples:
        evaluator.process([sample])
    return evaluator.evaluate(len(samples))


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


def test_figures_by_hand(literal):
    values = evaluate(
        FrameMAPMetric(**literal, iou_thrs=(0.5, 0.75)),
        predict('v', 1, [LEFT, RIGHT], [[0, 0.9, 0.8, 0.7], [0, 0.8, 0.9, 0]]),
        predict('v', 2.5, [THIN], [[0, 0.7, 0, 0]]),
        predict('w', 1, [], []),
        predict('z', 1, [LEFT], [[0, 1, 1, 1]]),  # not annotated
    )
    sit = 1  # three of three, in front of nothing false
    run = 1 / 4  # of two one, after a false one
    person = (1 + 1 + 1 + 0) / 4  # LEFT and RIGHT at .9, THIN at .7, one not found
    assert values == pytest.approx(
        {
            'mAP/overall': (sit + run) / 2,
            'mAP/overall@0.75': (2 / 3 + run) / 2,
            'mAP/person_AP': person,
            'mAP/person_AP@0.75': 2 / 4,
            'mAP/person_recall': 3 / 4,
            'mAP/person_recall@0.75': 2 / 4,
            'mAP/sit': sit,
            'mAP/run': run,
        }
    )


def test_perfect_detections_score_one(literal):
    values = evaluate(
        METRICS.build(dict(type='FrameMAPMetric', **literal, prefix='val')),
        predict('v', 1, [LEFT, RIGHT], [[0, 0.9, 0.9, 0], [0, 0.9, 0, 0]]),
        predict('v', 2.5, [LEFT], [[0, 0.9, 0, 0]]),
        predict('w', 1, [LEFT], [[0, 0, 0.9, 0]]),
    )
    assert set(values) == {
        'val/overall',
        'val/person_AP',
        'val/person_recall',
        'val/sit',
        'val/run',
    }
    assert set(values.values()) == {1}


def test_a_class_without_detection_counts_as_missed(literal):
    values = evaluate(
        FrameMAPMetric(**literal, per_class=False),
        predict('v', 1, [LEFT, RIGHT], [[0, 0.9, 0, 0], [0, 0.9, 0, 0]]),
        predict('v', 2.5, [LEFT], [[0, 0.9, 0, 0]]),
        predict('w', 1, [LEFT], [[0, 0, 0.002, 0]]),  # not above score_thr
    )
    assert values['mAP/overall'] == 1 / 2
    assert 'mAP/run' not in values


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
    for over, divisor in (('truth', 2), ('detected', 1), ('all', 3)):
        values = evaluate(FrameMAPMetric(**literal, class_average=over), *samples)
        assert values['mAP/overall'] == pytest.approx(1 / 3 / divisor)
    with pytest.raises(ValueError, match="ap_mode='voc' is unknown"):
        FrameMAPMetric(**literal, ap_mode='voc')
    with pytest.raises(ValueError, match="class_average='some' is unknown"):
        FrameMAPMetric(**literal, class_average='some')


def test_ranks_in_any_order_and_padding_change_nothing(literal):
    samples = [
        predict('v', 1, [LEFT, RIGHT], [[0, 0.9, 0.5, 0.7], [0, 0.9, 0.5, 0]]),
        predict('v', 2.5, [RIGHT], [[0, 0.9, 0.5, 0]]),
        predict('w', 1, [LEFT], [[0, 0, 0.5, 0]]),
    ]
    whole = evaluate(FrameMAPMetric(**literal), *samples)
    assert evaluate(FrameMAPMetric(**literal), *samples[::-1], *samples[:2]) == whole


@pytest.mark.parametrize('samples', [[], [predict('v', 1, [], [])]])
def test_no_detection_at_all_scores_zero(literal, samples):
    values = evaluate(FrameMAPMetric(**literal), *samples)
    assert set(values.values()) == {0}


def test_a_repeated_keyframe_counts_once(literal):
    sample = predict('v', 1, [LEFT, RIGHT], [[0, 0.9, 0.9, 0], [0, 0.9, 0, 0]])
    once = evaluate(FrameMAPMetric(**literal), sample)
    assert evaluate(FrameMAPMetric(**literal), sample, sample) == once


def test_false_detections_in_person_free_keyframes(literal, write_text):
    samples = [
        predict('v', 1, [LEFT, RIGHT], [[0, 0.9, 0.9, 0], [0, 0.9, 0, 0]]),
        predict('v', 2.5, [LEFT], [[0, 0.9, 0, 0]]),
        predict('w', 1, [LEFT], [[0, 0, 0.9, 0]]),
        predict('v', 9, [LEFT], [[0, 0.95, 0, 0]]),
    ]
    assert evaluate(FrameMAPMetric(**literal), *samples)['mAP/sit'] == 1
    empty = write_text('empty.csv', 'v,0009')
    metric = FrameMAPMetric(**literal, empty_keyframes_file=empty)
    assert evaluate(metric, *samples)['mAP/sit'] == 3 / 4
    wrong = write_text('wrong.csv', 'v,1')
    with pytest.raises(ValueError, match=r'wrong.csv: keyframe v,0001'):
        FrameMAPMetric(**literal, empty_keyframes_file=wrong)


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


def test_only_classes_of_the_label_file_are_evaluated(literal, label_map):
    literal['label_file'] = label_map(run=2)
    values = evaluate(
        FrameMAPMetric(**literal),
        predict('v', 1, [LEFT], [[0, 0, 0.9, 0]]),
        predict('w', 1, [LEFT], [[0, 0, 0.9, 0]]),
    )
    assert values['mAP/overall'] == values['mAP/run'] == 1
    assert 'mAP/sit' not in values


def test_custom_classes_name_the_score_columns(literal):
    literal.update(custom_classes=[2, 1], num_classes=3)
    values = evaluate(
        FrameMAPMetric(**literal),
        predict('v', 1, [LEFT], [[0, 0.9, 0]]),
        predict('w', 1, [LEFT], [[0, 0.9, 0]]),
    )
    assert (values['mAP/run'], values['mAP/sit']) == (1, 0)


def test_faulty_arguments_and_predictions(literal, write_text):
    with pytest.raises(ValueError, match='iou_thrs'):
        FrameMAPMetric(**literal, iou_thrs=(50,))
    with pytest.raises(TypeError, match='iou_thr'):
        FrameMAPMetric(**literal, iou_thr=0.5)
    everything = write_text('exclude.csv', 'v,1', 'v,2.5', 'w,1')
    with pytest.raises(ValueError, match='no annotation to evaluate'):
        FrameMAPMetric(**literal, exclude_file=everything)
    with pytest.raises(ValueError, match='num_classes=4'):
        evaluate(FrameMAPMetric(**literal), predict('v', 1, [LEFT], [[0, 0.9]]))
    literal['ann_file'] = write_text('bad.csv', 'v,1')
    with pytest.raises(ValueError, match=r'bad.csv, line 1: '):
        FrameMAPMetric(**literal)


def host_class_aps(ann_file, det_file, class_ids, threshold):
    """The host's evaluation, without its pool of processes."""
    with open(ann_file) as file:
        truths, truth_labels, _ = ava_utils.read_csv(file, class_ids)
    with open(det_file) as file:
        boxes, labels, scores = ava_utils.read_csv(file, class_ids)
    all_scores, all_right = defaultdict(list), defaultdict(list)
    for key in truths:
        frame = truths[key], truth_labels[key], boxes[key], labels[key], scores[key]
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


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('threshold', [0.5, 0.3])
def test_equal_to_the_host_where_both_are_defined(write_text, seed, threshold):
    random = np.random.RandomState(seed)
    num_actions = 6
    truth_lines, detection_lines, samples = [], [], []

    def line(timestamp, bbox, *rest):
        numbers = ','.join(repr(float(value)) for value in bbox)
        return f'v,{timestamp:04d},{numbers},' + ','.join(map(repr, rest))

    for timestamp in range(902, 922):
        truths = np.sort(random.rand(3, 2, 2), axis=1).reshape(3, 4)
        for person, bbox in enumerate(truths):
            actions = random.choice(num_actions, 2, replace=False) + 1
            truth_lines += [line(timestamp, bbox, int(a), person) for a in actions]
        near = np.repeat(truths, 2, axis=0) + random.normal(0, 0.05, (6, 4))
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
        ann_file, num_classes=num_actions + 1, score_thr=0.3, iou_thrs=(threshold,)
    )
    ours = evaluate(metric, *samples)
    host = host_class_aps(
        ann_file,
        write_text('detections.csv', *detection_lines),
        set(range(1, num_actions + 1)),
        threshold,
    )
    assert len(host) == num_actions
    assert max(host.values()) > 0.05
    for label, ap in host.items():
        assert ours[f'mAP/class {label}'] == pytest.approx(ap, abs=1e-9)
    assert ours['mAP/overall'] == pytest.approx(np.mean(list(host.values())))
