import matplotlib.image
import numpy as np
import pytest

from stmixer_mm.evaluation.functional.error_types import (
    CLASSIFICATION,
    LOCALISATION,
    OTHER,
    RIGHT,
    TIME,
    ErrorShares,
    error_shares,
    error_types,
    format_error_table,
    mean_shares,
)
from stmixer_mm.projects.diagnosis.figures import draw_errors


def test_the_first_type_that_holds():
    # right, own class in frame, other class in frame, on it, class in video
    cases = {
        (1, 1, 1, 1, 1): RIGHT,
        (0, 1, 0, 0, 1): LOCALISATION,
        (0, 1, 1, 1, 1): LOCALISATION,
        (0, 0, 1, 1, 1): CLASSIFICATION,
        (0, 0, 1, 1, 0): CLASSIFICATION,
        (0, 0, 1, 0, 1): OTHER,
        (0, 0, 0, 0, 1): TIME,
        (0, 0, 0, 0, 0): OTHER,
    }
    flags = np.array(list(cases), dtype=bool).T
    assert error_types(*flags).tolist() == list(cases.values())


def test_shares_by_hand():
    # Right, time, right, of three: shares of the first 1, 2, 3 detections.
    shares = error_shares(np.array([RIGHT, TIME, RIGHT, OTHER]), 3)
    ap = ((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 3
    time = ((0 + 0) / 2 + (1 / 2 + 1 / 3) / 2) / 3
    expected = ErrorShares(ap, 0, 0, time, 0, 1 / 3)
    assert shares == pytest.approx(expected)
    assert sum(shares) == pytest.approx(1)


def test_without_detections_all_is_missed():
    assert error_shares(np.zeros(0, int), 2) == (0, 0, 0, 0, 0, 1)
    assert error_shares(np.array([RIGHT, RIGHT]), 2) == (1, 0, 0, 0, 0, 0)


SHARES = {
    'run': ErrorShares(0.5, 0.1, 0.1, 0.1, 0.1, 0.1),
    'sit still': ErrorShares(0.7, 0.3, 0, 0, 0, 0),
}


def test_table():
    assert mean_shares(SHARES)[:2] == pytest.approx((0.6, 0.2))
    head, _, *lines = format_error_table(SHARES).splitlines()
    assert head.split() == list(ErrorShares._fields)
    assert lines[1].split() == ['sit', 'still', '70.00', '30.00', *['0.00'] * 4]
    assert lines[2].split()[:3] == ['mean', '60.00', '20.00']


def test_picture(tmp_path):
    draw_errors(SHARES, tmp_path / 'errors.png')
    image = matplotlib.image.imread(tmp_path / 'errors.png')
    assert image.shape[1] == 880
    # The bar of 70 % AP is seen, in its colour.
    green = np.abs(image[..., :3] - [0x4C / 255, 0x9F / 255, 0x70 / 255]).max(-1) < 0.02
    assert green.sum() > 1000
    assert [path.name for path in tmp_path.iterdir()] == ['errors.png']
