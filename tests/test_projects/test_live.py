import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
from detections import keyframe

from stmixer_mm.errors import UserError
from stmixer_mm.projects.live import detection as module
from stmixer_mm.projects.live.detection import Listener, LiveDetection

PATIENCE_S = 20


class Source:
    """Opens one generator of frames after the other."""

    name = 'made up'

    def __init__(self, *connections, is_endless=False):
        self._connections, self.is_endless = iter(connections), is_endless

    def __iter__(self):
        yield from next(self._connections, ())


class Notes(Listener):
    def __init__(self):
        self.results, self.firsts = [], []
        self.on_connection, self.on_result = self.firsts.append, self.results.append

    @property
    def indices(self):
        return [result.keyframe.frame_index for result in self.results]


def frames(number, *, size=(4, 6), first=0):
    for index in range(first, first + number):
        yield index / 10, np.full((*size, 3), index, np.uint8)


def broken(number):
    yield from frames(number)
    raise UserError('It is gone.')


def find(clips):
    """One person, whose score is the grey value of the keyframe."""
    for clip in clips:
        place = clip.frame_index - clip.frames.start
        grey = float(clip.sample['video_reader'].get_batch([place])[0].mean())
        bboxes, actions = [[0, 0, 3, 3]], [[('run', grey)]]
        yield keyframe(clip.time_s, clip.frame_index, bboxes, actions)


def build(source, *, detect=find, spans=(2, 1), **options):
    notes = Notes()
    live = LiveDetection(source, detect, spans, **options)
    live.listeners.append(notes)
    return live, notes


def start(source, **options):
    live, notes = build(source, **options)
    live.start()
    return live, notes


def test_the_newest_clip_wins_and_no_queue_grows():
    """Of the frames that come while the model is busy, only the newest is a keyframe."""
    is_busy, may_go = threading.Event(), threading.Event()

    def one_by_one():
        yield from frames(5)
        assert is_busy.wait(PATIENCE_S)
        yield from frames(200, first=5)
        may_go.set()
        yield from frames(1, first=205)

    def slow(clips):
        for number, result in enumerate(find(clips)):
            if number == 0:
                is_busy.set()
                assert may_go.wait(PATIENCE_S)
                assert len(live._ring._ring) == 2 + 1 + 2
            yield result

    live, notes = build(Source(one_by_one()), detect=slow)
    live.start()
    assert live.wait(PATIENCE_S)
    first, *later_indices = notes.indices
    assert first <= 3
    assert later_indices[0] >= 203
    assert later_indices[-1] == 204  # one frame behind its keyframe is the last of 206
    assert [r.keyframe.actions[0][0][1] for r in notes.results] == notes.indices


def test_a_stream_shorter_than_a_clip_is_one_clip():
    live, notes = start(Source(frames(1)), spans=(8, 8))
    assert live.wait(PATIENCE_S)
    assert notes.indices == [0]


def test_a_stream_that_breaks_is_opened_again(monkeypatch):
    """Each time after twice the pause; frame numbers and times continue."""
    monkeypatch.setattr(module, 'FIRST_PAUSE_S', 0.01)
    monkeypatch.setattr(module, 'LONGEST_PAUSE_S', 0.04)
    waiting, said = threading.Event(), []

    def last():
        yield from frames(9, size=(8, 8))
        assert waiting.wait(PATIENCE_S)

    source = Source(*map(broken, (9, 0, 0)), (), last(), is_endless=True)
    live, notes = start(source, log=said.append)
    end = time.monotonic() + PATIENCE_S
    while not (notes.results and notes.results[-1].size == (8, 8)):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert live.figures()['connections'] == 2
    assert live.is_connected
    waiting.set()
    live.stop()
    assert [line.split()[-2] for line in said[:4]] == ['0.01', '0.02', '0.04', '0.04']
    assert notes.firsts == [0, 9]
    assert all(np.diff(notes.indices) > 0)
    assert all(np.diff([result.keyframe.time_s for result in notes.results]) > 0)


def test_any_error_ends_all():
    """Of detection, and of an endless source which has never opened."""

    def fail(clips):
        raise UserError('The disk is full.')

    for connection, detect in ((broken(0), find), (frames(9), fail)):
        live, _ = start(Source(connection, is_endless=True), detect=detect)
        with pytest.raises(UserError):
            live.wait(PATIENCE_S)
        live.stop()


def test_a_signal_leaves_no_thread_behind(monkeypatch):
    """A thread in the runtime at the end of the interpreter would abort it."""
    may_go = threading.Event()

    def slow(clips):
        for result in find(clips):
            assert may_go.wait(PATIENCE_S)
            yield result

    monkeypatch.setattr(module, 'LEAVE_S', 0.0)
    handler = signal.signal(signal.SIGUSR1, lambda *args: sys.exit())
    live, notes = start(Source(frames(9)), detect=slow)
    with pytest.raises(SystemExit):
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        live.wait(PATIENCE_S)
    signal.signal(signal.SIGUSR1, handler)
    threading.Timer(0.2, may_go.set).start()
    live.stop()
    assert len(notes.results) == 1


def test_keyframes_are_as_far_apart_as_asked_for():
    def slowly():
        for item in frames(30):
            time.sleep(0.02)
            yield item

    begin = time.monotonic()
    live, notes = start(Source(slowly()), interval_s=0.2)
    assert live.wait(PATIENCE_S)
    # The last one comes early, when the stream ends.
    assert 0 < (len(notes.indices) - 2) * 0.2 <= time.monotonic() - begin


def test_latency_counts_from_capture(monkeypatch):
    """It includes the frames after the keyframe: here one, of 0.1 s."""
    time_s = 100.0
    monkeypatch.setattr(module.time, 'monotonic', lambda: time_s)

    def one_by_one():
        nonlocal time_s
        for frame in frames(30):
            time_s += 0.1
            yield frame

    def slow(clips):
        nonlocal time_s
        for detections in find(clips):
            time_s += 0.25
            yield detections

    live, notes = build(Source(one_by_one()), detect=slow)
    live._capture()  # to the end, so that one keyframe is left
    live._detect_newest()
    (result,) = notes.results
    assert result.keyframe.frame_index == 28
    assert result.latency_s == pytest.approx(0.1 + 0.25)
