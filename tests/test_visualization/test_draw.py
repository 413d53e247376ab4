import numpy as np
import pytest

from stmixer_mm.visualization.draw import draw_detections, move_mask

FRAME = np.random.RandomState(0).randint(0, 255, (144, 192, 3), np.uint8)


def test_frame_is_left_as_it_is_where_nothing_is_drawn():
    original = FRAME.copy()
    assert np.array_equal(draw_detections(FRAME, np.zeros((0, 4)), []), original)
    drawn = draw_detections(FRAME, [[20, 20, 60, 120]], [[]])
    assert np.array_equal(FRAME, original)
    rows, columns = np.nonzero((drawn != FRAME).any(axis=2))
    assert (rows.min(), rows.max()) == pytest.approx((20, 120), abs=3)
    assert (columns.min(), columns.max()) == pytest.approx((20, 60), abs=3)
    assert np.array_equal(drawn[25:115, 25:55], FRAME[25:115, 25:55])


@pytest.mark.parametrize('bbox', [[-50, -50, 20, 20], [90, 60, 91, 61], [1e9] * 4])
@pytest.mark.parametrize('shape', [(144, 192), (16, 16), (720, 1280)])
def test_labels_stay_inside_the_frame(bbox, shape):
    frame = np.full((*shape, 3), 7, np.uint8)
    actions = [(f'a rather long action {i}', 0.5) for i in range(6)]
    drawn = draw_detections(frame, [bbox], [actions], ids=[12])
    assert drawn.shape == frame.shape
    assert (drawn != frame).any()


def test_labels_of_people_side_by_side_do_not_cover_each_other():
    frame = np.zeros((240, 426, 3), np.uint8)
    bboxes = [[100, 100, 150, 200], [150, 100, 200, 200]]
    plain, label = draw_detections(frame, bboxes, [[], []]), [('walk_or_run', 0.9)]

    def label_pixels(*actions):
        return (draw_detections(frame, bboxes, actions) != plain).any(axis=2).sum()

    alone = label_pixels(label, []), label_pixels([], label)
    assert label_pixels(label, label) >= 0.97 * sum(alone)


def test_labels_do_not_cover_small_persons():
    frame = np.zeros((720, 1280, 3), np.uint8)
    bboxes = [[200 * i, 300, 200 * i + 30, 370] for i in range(1, 6)]
    pairs = [[('walk', 0.9), ('wave', 0.8)]] * 5
    drawn = draw_detections(frame, bboxes, pairs, ids=range(5))
    covered = (drawn != draw_detections(frame, bboxes, [[]] * 5)).any(axis=2)
    of_persons = [covered[y1:y2, x1:x2].mean() for x1, y1, x2, y2 in bboxes]
    assert covered.any() and np.mean(of_persons) < 0.2


def test_each_action_can_have_its_colour():
    bboxes, colors = [[60, 100, 180, 140]], [[(0, 255, 0), (255, 0, 0)]]
    pairs = [('walk', 0.9), ('stand', 0.8)]
    drawn = draw_detections(np.zeros_like(FRAME), bboxes, [pairs], colors=colors)
    of_walk, _ = np.nonzero(drawn[:95, :, 1] > 150)
    of_stand, _ = np.nonzero(drawn[..., 0] > 150)
    assert of_walk.max() < of_stand.min() <= of_stand.max() < 100
    assert (drawn[105:, :, 1] > 100).any()  # the box has the colour of the first


def test_a_mask_goes_with_its_box():
    mask = np.zeros((40, 60), bool)
    mask[10:20, 5:15] = True
    bbox = np.array([5, 10, 15, 20.0])
    assert np.array_equal(move_mask(mask, (40, 60), bbox, bbox), mask)
    shifted = move_mask(mask, (40, 60), bbox, np.add(bbox, (20, 5, 30, 10)))
    expected = np.zeros((40, 60), bool)
    expected[15:30, 25:45] = True
    assert np.array_equal(shifted, expected)
    twice_as_large = move_mask(mask, (80, 120), 2 * bbox, 2 * bbox)
    assert np.array_equal(twice_as_large[::2, ::2], mask)
