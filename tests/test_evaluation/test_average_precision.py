import numpy as np
import pytest

from stmixer_mm.evaluation.functional.average_precision import (
    average_precision,
    class_mean,
    parse_iou_thrs,
)


@pytest.mark.parametrize(
    'right, num_gts, interpolated, act',
    [
        ([1, 1, 0, 0], 2, 1, 1),
        ([], 3, 0, 0),
        # Precision 1, 1/2, 2/3; a step of 1/2 of recall at the first and the third.
        ([1, 0, 1], 2, 1 / 2 + 2 / 3 / 2, (1 + 1) / 2 / 2 + (1 / 2 + 2 / 3) / 2 / 2),
        # Precision 0, 1/2: the trapezoid starts at 0, the envelope at 1/2.
        ([0, 1], 1, 1 / 2, (0 + 1 / 2) / 2),
        ([1], 4, 1 / 4, 1 / 4),
        ([0, 0], 0, np.nan, np.nan),
    ],
)
def test_by_hand(right, num_gts, interpolated, act):
    for mode, expected in dict(interpolated=interpolated, act=act).items():
        found = average_precision(np.array(right, dtype=bool), num_gts, mode=mode)
        assert found == pytest.approx(expected, abs=1e-15, nan_ok=True)


def test_which_classes_count():
    aps = np.array([[0.5, 0.3], [0, 0], [np.nan, np.nan]])
    counts = np.array([4, 2, 0]), np.array([9, 0, 3])
    assert class_mean(aps, *counts, over='gt').tolist() == [0.25, 0.15]
    assert class_mean(aps, *counts, over='detected').tolist() == [0.5, 0.3]
    np.testing.assert_allclose(class_mean(aps, *counts, over='all'), [0.5 / 3, 0.1])
    nothing = np.zeros(3, int)
    assert class_mean(aps, counts[0], nothing, over='detected').tolist() == [0, 0]


@pytest.mark.parametrize(
    'thrs, parsed',
    [
        (0.5, {'0.5': [0.5]}),
        ((1, '0.5:0.6'), {'1': [1], '0.5:0.6': [0.5, 0.55, 0.6]}),
        (['0.1:0.9:0.4'], {'0.1:0.9:0.4': [0.1, 0.5, 0.9]}),
        ('0.5:0.95', {'0.5:0.95': [0.5 + 0.05 * i for i in range(10)]}),
    ],
)
def test_iou_thresholds_and_ranges(thrs, parsed):
    found = parse_iou_thrs(thrs)
    assert {name: pytest.approx(values) for name, values in found.items()} == parsed


@pytest.mark.parametrize(
    'thrs', [[50], ['a'], '0.9:0.5', '0.5:0.9:0', [], '0.5:0.8:0.2']
)
def test_iou_thresholds_that_cannot_be(thrs):
    with pytest.raises(ValueError, match='iou_thrs'):
        parse_iou_thrs(thrs)
