import numpy as np
import pytest
from mmaction.evaluation.functional.ava_evaluation import np_box_ops

from stmixer_mm.evaluation.functional.frame_map import (
    Boxes,
    average_precision,
    best_of_frames,
    frame_pairs,
    recall,
)
from stmixer_mm.evaluation.functional.matching import (
    BestMatch,
    aligned_iou,
    best_matches,
)


def random_bboxes(random, count):
    corners = random.rand(count, 2, 2)
    return np.sort(corners, axis=1).reshape(count, 4)


def test_iou_is_the_hosts():
    random = np.random.RandomState(0)
    first, second = random_bboxes(random, 50), random_bboxes(random, 50)
    yxyx = [1, 0, 3, 2]
    host = np_box_ops.iou(first[:, yxyx], second[:, yxyx])
    np.testing.assert_allclose(aligned_iou(first, second), np.diag(host), atol=1e-12)


def test_iou_of_empty_boxes_is_zero():
    boxes = np.array([[0.5, 0.5, 0.5, 0.5], [0, 0, 1, 1]])
    assert aligned_iou(boxes, boxes).tolist() == [0, 1]
    assert aligned_iou(boxes, boxes[::-1]).tolist() == [0, 0]


def test_each_detection_meets_the_truth_it_overlaps_most():
    truths = Boxes(
        np.array([0, 0, 2]),
        np.array([[0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 10, 10]], float),
        np.ones(3),
    )
    detections = Boxes(
        np.array([2, 0, 1, 0, 0]),
        np.array(
            [
                [0, 0, 10, 5],  # half of the truth of its keyframe
                [6, 0, 15, 10],
                [0, 0, 10, 10],  # a keyframe without truth
                [20, 20, 30, 30],  # overlaps nothing
                [2.5, 0, 12.5, 10],  # both alike: the first
            ],
            float,
        ),
        np.ones(5),
    )
    matches = best_matches(frame_pairs(detections, truths), 5)
    assert matches.index.tolist() == [2, 1, -1, 0, 0]
    np.testing.assert_allclose(matches.iou, [0.5, 0.9, 0, 0, 0.6])


def test_matching_nothing_is_possible():
    some = Boxes(np.zeros(2, int), np.zeros((2, 4)), np.ones(2))
    none = Boxes(np.zeros(0, int), np.zeros((0, 4)), np.zeros(0))
    assert best_matches(frame_pairs(none, some), 0).index.shape == (0,)
    assert best_matches(frame_pairs(some, none), 2).index.tolist() == [-1, -1]


@pytest.mark.parametrize(
    'claims, num_truths, expected',
    [
        ([0, 1], 2, 1),
        ([0], 2, 1 / 2),
        ([-1, 0], 1, 1 / 2),
        ([0, -1], 1, 1),
        ([0, 0, 1], 2, (1 + 2 / 3) / 2),  # a second claim is a false detection
        ([-1, 0, 1], 2, 2 / 3),  # precision 1/2, then 2/3: the envelope lifts it
        ([0, -1, -1, 1], 4, (1 + 1 / 2) / 4),
        ([], 3, 0),
    ],
)
def test_average_precision_by_hand(claims, num_truths, expected):
    claims = np.array(claims, dtype=int)
    matches = BestMatch(claims, np.where(claims < 0, 0, 0.6))
    scores = np.linspace(0.9, 0.1, len(claims))
    shuffle = np.random.RandomState(0).permutation(len(claims))
    ap = average_precision(
        scores[shuffle],
        BestMatch(matches.index[shuffle], matches.iou[shuffle]),
        num_truths,
        0.5,
    )
    assert ap == pytest.approx(expected)
    assert average_precision(scores, matches, num_truths, 0.7) == 0
    found = len(set(claims.tolist()) - {-1})
    assert recall(matches, num_truths, 0.5) == found / num_truths


def test_the_threshold_itself_is_enough():
    matches = BestMatch(np.array([0]), np.array([0.5]))
    assert average_precision(np.ones(1), matches, 1, 0.5) == 1


def test_a_weak_overlap_does_not_use_up_a_truth():
    matches = BestMatch(np.array([0, 0]), np.array([0.4, 0.8]))
    assert average_precision(np.array([0.9, 0.8]), matches, 1, 0.5) == 1 / 2


def test_without_truth_there_is_no_figure():
    matches = BestMatch(np.array([-1]), np.array([0.0]))
    assert np.isnan(average_precision(np.ones(1), matches, 0, 0.5))
    assert np.isnan(recall(matches, 0, 0.5))


def test_the_best_of_each_frame_by_hand():
    frames = np.array([2, 1, 2, 2, 1])
    scores = np.array([0.5, 0.1, 0.7, 0.5, 0.2])
    assert best_of_frames(frames, scores, 1).tolist() == [
        False,
        False,
        True,
        False,
        True,
    ]
    # Of equal scores the first stays.
    assert best_of_frames(frames, scores, 2).tolist() == [True, True, True, False, True]
    assert best_of_frames(frames[:0], scores[:0], 1).tolist() == []
