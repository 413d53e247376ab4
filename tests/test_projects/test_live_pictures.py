import threading
from itertools import islice

import numpy as np
import pytest
from detections import keyframe

from stmixer_mm.projects.live import pictures as module
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
        pictures.on_frame(number, np.full((*size, 3), number, np.uint8))


def add_result(pictures, frame, x1=100, size=SIZE):
    bboxes, actions = [[x1, 100, x1 + 50, 200]], [[('run', 0.9)]]
    detections = keyframe(frame / 10, frame, bboxes, actions, [0])
    pictures.on_result(LiveResult(detections, size, 0.0, 0.1))


def numbers_of(drawn):
    return [picture[-1, -1, 0] for picture in drawn]


def left_of(picture, row=150):
    """Left side of the box, by its colour in a row that no label covers."""
    return np.flatnonzero((picture[row] == (255, 193, 7)).all(axis=1))[0]


def test_boxes_are_between_those_of_the_keyframes_around(pictures):
    """Frames before the first keyframe are not shown."""
    add_frames(pictures, range(12))
    add_result(pictures, 1, x1=100)
    add_result(pictures, 11, x1=200)
    pictures.finish()
    drawn = [*pictures]
    assert numbers_of(drawn) == [*range(1, 12)]
    lefts = [left_of(picture) for picture in drawn]
    assert lefts == pytest.approx([*range(100, 210, 10)], abs=2)


def test_frames_wait_for_the_keyframe_after_them(pictures):
    """Also for one that was predicted ahead."""
    add_frames(pictures, range(6))
    add_result(pictures, 0)
    shown = []
    thread = threading.Thread(target=lambda: shown.extend(islice(pictures, 5)))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive() and not shown
    add_result(pictures, 4)
    add_result(pictures, 8)
    add_frames(pictures, range(6, 9))
    thread.join(20)
    assert numbers_of(shown) == [0, 1, 2, 3, 4]
    assert [left_of(picture) for picture in shown] == pytest.approx([100] * 5, abs=2)


def test_the_oldest_are_dropped_and_unwatched_ones_are_not_kept(monkeypatch):
    monkeypatch.setattr(module, '_MAX_WAITING', 3)
    pictures = LivePictures()
    add_frames(pictures, range(5))
    with pictures.watched():
        add_frames(pictures, range(5, 10))
    add_frames(pictures, range(10, 12))
    add_result(pictures, 0)
    assert pictures.dropped == 2
    pictures.finish()
    assert numbers_of(pictures) == [7, 8, 9]


def test_a_new_connection_begins_anew(pictures):
    add_frames(pictures, range(3))
    add_result(pictures, 0)
    pictures.on_connection(3)
    add_result(pictures, 1)  # was under way
    add_frames(pictures, range(3, 6), size=(1080, 1440))
    add_result(pictures, 3, x1=300, size=(1080, 1440))
    pictures.finish()
    drawn = [*pictures]
    assert numbers_of(drawn) == [3, 4, 5]
    assert {picture.shape for picture in drawn} == {(720, 960, 3)}
    assert left_of(drawn[0], row=100) == pytest.approx(200, abs=2)
