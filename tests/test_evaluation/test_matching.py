from fractions import Fraction

import numpy as np
import pytest

from stmixer_mm.evaluation.functional.matching import (
    Boxes,
    Pairs,
    frame_pairs,
    match,
    restore_pixels,
)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('size', [(64, 48), (3840, 2160)])
@pytest.mark.parametrize('thr', [Fraction(1, 2), Fraction(3, 10)])
def test_normalising_decides_nothing(size, thr, dtype):
    """Boxes of whole pixels reach the IoU that they have, and no higher one."""
    random = np.random.RandomState(0)
    width = random.randint(1, size[0] // thr.denominator, 500) * thr.denominator
    height = random.randint(1, size[1], 500)
    low = random.randint(0, np.column_stack([size[0] - width, size[1] - height]) + 1)
    truth = np.column_stack([low, low[:, 0] + width, low[:, 1] + height])
    # As high, and a part as wide.
    equal = truth.copy()
    equal[:, 2] = low[:, 0] + width * thr.numerator // thr.denominator
    for short, reached in ((0, 500), (1, 0)):
        narrower = equal - [0, 0, short, 0]
        frames, scores = np.arange(500), np.ones(500)
        detections, gts = (
            Boxes(frames, (boxes / (size * 2)).astype(dtype), scores)
            for boxes in (narrower, truth)
        )
        gts = gts._replace(bboxes=gts.bboxes.astype(float))
        pairs = frame_pairs(detections, gts, min_iou=0.1)
        assert len(frame_pairs(detections, gts, min_iou=float(thr)).ious) == reached
        for matching in ('best', 'free'):
            right = match(scores, frames, pairs, float(thr), matching=matching)
            assert right.sum() == reached


def test_pixels_are_restored():
    for size in (7, 49, 320, 1333, 3840):
        integers = np.arange(-size, size + 1.0)
        normalised = (integers / size).astype(np.float32)
        assert (restore_pixels(normalised * float(size)) == integers).all()
        decimals = np.round(np.linspace(-size, size, 1000), 4)
        assert (restore_pixels(decimals / size * size) == decimals).all()


@pytest.mark.parametrize(
    'pairs, best, free',
    [
        # Both overlap 0 most; the second overlaps 1 by 0.6 as well.
        ([(0, 0, 0.9), (1, 0, 0.8), (1, 1, 0.6)], [1, 0], [1, 1]),
        # Of two alike the first is claimed, whatever the order of the pairs.
        ([(1, 0, 0.8), (0, 1, 0.7), (0, 0, 0.7)], [1, 0], [1, 0]),
        ([(1, 1, 0.8), (0, 1, 0.7), (0, 0, 0.7)], [1, 1], [1, 1]),
    ],
)
def test_matching_by_hand(pairs, best, free):
    detections, gts, ious = map(np.array, zip(*pairs, strict=True))
    pairs = Pairs(detections, gts, ious, ious)
    for matching, expected in dict(best=best, free=free).items():
        scores, groups = np.array([0.9, 0.8]), np.zeros(2, int)
        assert match(scores, groups, pairs, 0.5, matching=matching).tolist() == expected
