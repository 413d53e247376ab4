"""What is drawn on a stream, without a model."""

import threading
from itertools import islice

import numpy as np
import pytest
from detections import keyframe

from stmixer_mm.projects.live import pictures as pictures_module
from stmixer_mm.projects.live.detection import LiveResult
from stmixer_mm.projects.live.pictures import LivePictures

SIZE = (360, 480)


@pytest.fixture
def pictures():
    pictures = LivePictures(0.3)
    with pictures.watched():
        pictures.on_connection(0)
        yield pictures


def add_frames(pictures, numbers, size=SIZE):
    for number in numbers:
        pictures.on_frame(number, number / 10, np.full((*size, 3), number, np.uint8))


def add_result(pictures, frame, left, score=0.9, size=SIZE):
    bboxes = np.array([[left, 100, left + 50, 200.0]])
    found = keyframe(frame / 10, frame, bboxes, [[('run', score)]], [0])
    pictures.on_result(LiveResult(found, size, 0.0, 0.1))


def numbers_of(drawn):
    return [round(time_s * 10) for time_s, _ in drawn]


def left_of(picture):
    """Where the box begins, found by its colour in a row that no label covers."""
    return np.flatnonzero((picture[150] == (255, 193, 7)).all(axis=1))[0]


def test_boxes_are_between_those_of_the_keyframes_around(pictures):
    add_frames(pictures, range(12))
    add_result(pictures, 0, left=100)
    add_result(pictures, 10, left=200)
    pictures.finish()
    drawn = [*pictures]
    assert numbers_of(drawn) == [*range(12)]
    lefts = [left_of(picture) for _, picture in drawn]
    expected = [100 + 10 * min(number, 10) for number in range(12)]
    assert lefts == pytest.approx(expected, abs=2)


def test_frames_before_the_first_keyframe_are_not_shown(pictures):
    add_frames(pictures, range(6))
    add_result(pictures, 4, left=100)
    pictures.finish()
    assert numbers_of(pictures) == [4, 5]


def test_frames_wait_for_the_keyframe_behind_them(pictures):
    add_frames(pictures, range(9))
    add_result(pictures, 0, left=100)
    shown = []
    thread = threading.Thread(target=lambda: shown.extend(islice(pictures, 5)))
    thread.start()
    thread.join(0.05)
    assert not shown
    add_result(pictures, 4, left=100)
    add_result(pictures, 8, left=100)
    thread.join(20)
    assert numbers_of(shown) == [0, 1, 2, 3, 4]


def test_the_oldest_are_dropped_and_counted(pictures, monkeypatch):
    monkeypatch.setattr(pictures_module, '_KEPT_BYTES', 3 * 360 * 480 * 3)
    add_result(pictures, 0, left=100)
    add_frames(pictures, range(10))
    assert pictures.dropped == 7
    pictures.finish()
    assert numbers_of(pictures) == [7, 8, 9]


def test_a_new_connection_begins_anew_in_its_own_size(pictures):
    add_frames(pictures, range(3))
    add_result(pictures, 0, left=100)
    pictures.on_connection(3)
    add_result(pictures, 1, left=100)  # was under way
    add_frames(pictures, range(3, 6), size=(1080, 1440))
    add_result(pictures, 3, left=100, size=(1080, 1440))
    pictures.finish()
    drawn = [*pictures]
    assert numbers_of(drawn) == [3, 4, 5]
    assert {picture.shape for _, picture in drawn} == {(720, 960, 3)}
    place = np.flatnonzero((drawn[0][1][100] == (255, 193, 7)).all(axis=1))[0]
    assert place == pytest.approx(100 * 720 / 1080, abs=2)


def test_the_threshold_leaves_out_actions(pictures):
    def labels(score):
        add_frames(pictures, [0])
        add_result(pictures, 0, left=100, score=score)
        pictures.finish()
        ((_, picture),) = pictures
        return (picture[:98] != 0).any()

    pictures.score_thr = 0.5
    assert not labels(0.4)
    assert labels(0.6)


def test_nothing_is_kept_while_nobody_looks():
    pictures = LivePictures()
    add_frames(pictures, range(5))
    with pictures.watched():
        add_frames(pictures, range(5, 7))
    add_frames(pictures, range(7, 9))
    add_result(pictures, 0, left=100)
    pictures.finish()
    assert numbers_of(pictures) == [5, 6]
