import literal_act
import numpy as np
import pytest
from tube_data import still

from stmixer_mm.evaluation.functional.tubes import (
    join_tubes,
    suppress_tubes,
    tube_overlaps,
)


def iou(first, *tubes, **kwargs):
    many = join_tubes([(0, tube, 1) for tube in tubes])
    return tube_overlaps(join_tubes([(0, first, 1)]), many, **kwargs).ious


def straight(first, last, box=(0, 0, 9, 9)):
    return still(first, last, box)


@pytest.mark.parametrize('frame', [0, 1])
def test_tubes_of_one_frame(frame):
    tube = straight(3, 3)
    ious = iou(tube, tube, straight(4, 4), straight(3, 3, (0, 0, 9, 4)), frame=frame)
    np.testing.assert_allclose(ious, [1, 0, 1 / 2])


def test_frames_that_a_tube_leaves_out_are_not_overlap():
    whole = straight(1, 10)
    gaps = whole[[0, 1, 8, 9]]
    np.testing.assert_allclose(iou(gaps, whole, gaps, straight(3, 8)), [4 / 10, 1, 0])
    np.testing.assert_allclose(iou(whole, gaps), [4 / 10])


@pytest.mark.parametrize('unit', [0, 1])
def test_random_tubes_by_the_definition(unit):
    random = np.random.RandomState(0)
    tubes = []
    for _ in range(12):
        low = random.randint(0, 20, (random.randint(2, 20), 2))
        high = low + random.randint(10, 40, low.shape)
        frames = random.randint(1, 15) + np.arange(len(low))
        tubes.append(np.column_stack([frames, low, high]).astype(float))
    first, *tubes = tubes
    ious = iou(first, *tubes, pixel=unit, frame=unit)
    expected = [literal_act.span_tube_iou(first, tube, unit) for tube in tubes]
    np.testing.assert_allclose(ious, expected, atol=1e-12)
    assert (ious > 0).sum() > 5


def test_suppression_spares_other_sequences_and_weak_overlaps():
    tubes = join_tubes(
        [
            (0, straight(1, 10), 0.7),
            (0, straight(1, 8), 0.9),  # 0.8 of the first
            (0, straight(8, 20), 0.8),  # 3 / 20 of the first, 1 / 20 of the second
            (1, straight(1, 10), 0.5),
        ]
    )
    survivors = suppress_tubes(tubes, 0.3)
    assert survivors.scores.tolist() == [0.9, 0.8, 0.5]
    assert survivors.sequences.tolist() == [0, 0, 1]
    assert suppress_tubes(tubes, 0.8).scores.tolist() == [0.9, 0.8, 0.7, 0.5]
