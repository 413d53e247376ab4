import numpy as np
import pytest
from mmaction.evaluation.functional.ava_evaluation.metrics import (
    compute_average_precision,
)

from stmixer_mm.evaluation.functional.average_precision import (
    class_mean,
    parse_iou_thrs,
)


def test_the_hosts_metric_runs_on_any_numpy():
    assert np.isnan(compute_average_precision(None, None))


def test_which_classes_count():
    aps = np.array([[0.5, 0.3], [0, 0], [np.nan, np.nan]])
    counts = np.array([4, 2, 0]), np.array([9, 0, 3])
    expected = dict(gt=[0.25, 0.15], detected=[0.5, 0.3], all=[0.5 / 3, 0.1])
    for over, means in expected.items():
        np.testing.assert_allclose(class_mean(aps, *counts, over=over), means)
    nothing = np.zeros(3, int)
    assert class_mean(aps, counts[0], nothing, over='detected').tolist() == [0, 0]


def test_iou_thresholds_and_ranges():
    thresholds = parse_iou_thrs((1, '0.5:0.6', '0.1:0.9:0.4'))
    expected = {'1': [1], '0.5:0.6': [0.5, 0.55, 0.6], '0.1:0.9:0.4': [0.1, 0.5, 0.9]}
    assert thresholds.keys() == expected.keys()
    for name, values in expected.items():
        assert thresholds[name] == pytest.approx(values)
