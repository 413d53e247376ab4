import numpy as np
import pytest

from stmixer_mm.visualization import draw_detections


def changed(frame, drawn):
    rows, columns = np.nonzero((frame != drawn).any(axis=2))
    return rows, columns


@pytest.fixture
def frame():
    return np.random.RandomState(0).randint(0, 255, (144, 192, 3), np.uint8)


def test_frame_is_left_as_it_is(frame):
    before = frame.copy()
    drawn = draw_detections(frame, [[20, 20, 60, 120]], [[('walk', 0.9)]])
    assert np.array_equal(frame, before)
    assert drawn.shape == frame.shape
    assert drawn.dtype == np.uint8
    assert (drawn != frame).any()


def test_nothing_found_draws_nothing(frame):
    assert np.array_equal(draw_detections(frame, np.zeros((0, 4)), []), frame)


def test_inside_of_a_box_without_actions_is_left_free(frame):
    drawn = draw_detections(frame, [[20, 20, 60, 120]], [[]])
    rows, columns = changed(frame, drawn)
    assert (rows.min(), rows.max()) == pytest.approx((20, 120), abs=3)
    assert (columns.min(), columns.max()) == pytest.approx((20, 60), abs=3)
    assert np.array_equal(drawn[25:115, 25:55], frame[25:115, 25:55])


@pytest.mark.parametrize(
    'bbox',
    [
        [0, 0, 191, 143],
        [-50, -50, 20, 20],
        [180, 130, 400, 400],
        [0, 100, 10, 143],
        [90, 60, 91, 61],
        [1e9, 1e9, 2e9, 2e9],
    ],
)
@pytest.mark.parametrize('shape', [(144, 192), (16, 16), (720, 1280)])
def test_labels_stay_inside_the_frame(bbox, shape):
    frame = np.full((*shape, 3), 7, np.uint8)
    actions = [(f'a rather long action {i}', 0.5) for i in range(6)]
    drawn = draw_detections(frame, [bbox], [actions])
    assert drawn.shape == frame.shape
    assert (drawn != frame).any()


def test_labels_of_people_side_by_side_do_not_cover_each_other():
    frame = np.zeros((240, 426, 3), np.uint8)
    bboxes = [[100, 100, 150, 200], [150, 100, 200, 200]]

    def label_pixels(people):
        actions = [[('walk_or_run', 0.9)] if i in people else [] for i in range(2)]
        drawn = draw_detections(frame, bboxes, actions)
        plain = draw_detections(frame, bboxes, [[], []])
        return (drawn != plain).any(axis=2).sum()

    assert label_pixels({0, 1}) >= 0.97 * (label_pixels({0}) + label_pixels({1}))


def test_colour_follows_the_person_not_the_position(frame):
    boxes = [[20, 20, 60, 120], [100, 20, 140, 120]]
    once = draw_detections(frame, boxes, [[], []], ids=[4, 9])
    swapped = draw_detections(frame, boxes[::-1], [[], []], ids=[9, 4])
    assert np.array_equal(once, swapped)
    assert not np.array_equal(once, draw_detections(frame, boxes, [[], []]))


def test_names_beyond_ascii_are_drawn(frame):
    draw_detections(frame, [[20, 60, 60, 120]], [[('präsentiert 跳', None)]])
