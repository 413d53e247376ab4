import literal_act
import numpy as np
import pytest

from stmixer_mm.evaluation.functional import matching
from stmixer_mm.evaluation.functional.frame_map import Boxes, frame_pairs
from stmixer_mm.evaluation.functional.matching import (
    Pairs,
    aligned_iou,
    best_matches,
    choose_in_turn,
    claim_best,
    claim_free,
    group_pairs,
)


def random_boxes(random, count, frames):
    low = random.randint(0, 30, (count, 2))
    bboxes = np.hstack([low, low + random.randint(1, 30, (count, 2))]).astype(float)
    return Boxes(random.randint(0, frames, count), bboxes, random.rand(count))


def test_a_box_may_own_its_last_pixel():
    first, second = np.array([[0, 0, 1, 1]]), np.array([[1, 1, 2, 2]])
    assert aligned_iou(first, second) == 0
    assert aligned_iou(first, second, pixel=1) == 1 / (4 + 4 - 1)


@pytest.mark.parametrize('at_once', [1, 4, 1000])
def test_pairs_are_those_of_a_double_loop(monkeypatch, at_once):
    monkeypatch.setattr(matching, '_PAIRS_AT_ONCE', at_once)
    random = np.random.RandomState(0)
    groups, others = random.randint(0, 6, 20), np.sort(random.randint(2, 8, 9))
    found = [
        pair for part in group_pairs(groups, others) for pair in zip(*part, strict=True)
    ]
    assert found == [
        (i, j) for i in range(20) for j in range(9) if groups[i] == others[j]
    ]


def test_taking_turns():
    # Group 0: chooser 3 likes 1, then 2; chooser 4 likes 1, then 2. Group 1: alone.
    groups = np.array([0, 0, 0, 0, 1])
    choosers, chosen = np.array([3, 3, 4, 4, 5]), np.array([1, 2, 1, 2, 7])
    assert choose_in_turn(groups, choosers, chosen).tolist() == [0, 3, 4]
    assert choose_in_turn(*np.zeros((3, 0), int)).tolist() == []


def test_a_second_detection_may_claim_a_second_truth_or_not():
    # Both overlap truth 0 most; the second overlaps truth 1 by 0.6 as well.
    pairs = Pairs(np.array([0, 1, 1]), np.array([0, 0, 1]), np.array([0.9, 0.8, 0.6]))
    scores, groups = np.array([0.9, 0.8]), np.zeros(2, int)
    assert claim_free(scores, groups, pairs, 0.5).tolist() == [True, True]
    assert claim_best(scores, groups, pairs, 0.5).tolist() == [True, False]
    # Above 0.6 nothing is left for it, and the score decides who comes first.
    assert claim_free(scores[::-1], groups, pairs, 0.7).tolist() == [False, True]


def test_the_best_match_by_hand_whatever_the_order_of_the_detections():
    pairs = Pairs(
        np.array([3, 0, 3, 0, 3]), np.array([0, 1, 1, 2, 2]), np.array([5, 7, 9, 7, 9])
    )
    matches = best_matches(pairs, 4)
    assert matches.index.tolist() == [1, -1, -1, 1]
    assert matches.iou.tolist() == [7, 0, 0, 9]


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('pixel', [0, 1])
def test_claims_are_those_of_the_loops(seed, pixel):
    random = np.random.RandomState(seed)
    found, truths = random_boxes(random, 150, 8), random_boxes(random, 40, 8)
    order = np.argsort(truths.frames, kind='stable')
    truths = Boxes(*(field[order] for field in truths))
    pairs = frame_pairs(found, truths, pixel=pixel, min_iou=0.2)
    detections = list(zip(found.frames, found.scores, found.bboxes, strict=True))
    of_frame = {t: truths.bboxes[truths.frames == t] for t in range(8)}

    def iou(first, second):
        return literal_act.box_iou(first, second, pixel)

    by_score = np.argsort(-found.scores)
    for claim, literal in (
        (claim_free, literal_act.right_of_act),
        (claim_best, literal_act.right_of_voc),
    ):
        right = claim(found.scores, found.frames, pairs, 0.3)
        expected = literal(detections, of_frame, iou, 0.3)
        assert right[by_score].tolist() == expected
        assert 5 < sum(expected) < 40
