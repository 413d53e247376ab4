"""Live detection on made-up sources, by a made-up model."""

import threading
import time
from itertools import count, islice

import numpy as np
import pytest
from detections import keyframe

from stmixer_mm.errors import UserError
from stmixer_mm.projects.live.detection import Listener, LiveDetection

PATIENCE_S = 20


class Source:
    """Opens one list of frames after the other; an error among them is raised."""

    name = 'made up'

    def __init__(self, *connections, is_endless=False):
        self._connections, self.is_endless = iter(connections), is_endless

    def __iter__(self):
        for item in next(self._connections, ()):
            if isinstance(item, Exception):
                raise item
            yield item


class Notes(Listener):
    def __init__(self):
        self.results, self.firsts, self.changed = [], [], threading.Condition()

    def on_connection(self, index):
        self.firsts.append(index)

    def on_result(self, result):
        with self.changed:
            self.results.append(result)
            self.changed.notify_all()

    def wait_for(self, number):
        with self.changed:
            assert self.changed.wait_for(
                lambda: len(self.results) >= number, PATIENCE_S
            )


def frames(number, *, size=(4, 6), first=0):
    for index in range(first, first + number):
        yield index / 10, np.full((*size, 3), index, np.uint8)


def find(clips):
    """One person, whose score is the grey value of the keyframe."""
    for clip in clips:
        place = clip.frame_index - clip.frames.start
        grey = clip.sample['video_reader'][place].mean()
        yield keyframe(
            clip.time_s,
            clip.frame_index,
            np.array([[0, 0, 3, 3.0]]),
            [[('run', float(grey))]],
        )


def run(source, *, detect=find, spans=(2, 1), **options):
    notes, said = Notes(), []
    live = LiveDetection(
        source, detect, spans, listeners=[notes], say=said.append, **options
    )
    return live, notes, said


def indices(notes):
    return [result.found.frame_index for result in notes.results]


def test_the_newest_clip_wins():
    """Frames that come while the model is busy make one keyframe, the newest."""
    is_busy, may_go = threading.Event(), threading.Event()

    def one_by_one():
        yield from frames(5)
        assert is_busy.wait(PATIENCE_S)
        yield from frames(20, first=5)
        may_go.set()
        yield from frames(1, first=25)

    def slow(clips):
        for number, one in enumerate(find(clips)):
            if number == 0:
                is_busy.set()
                assert may_go.wait(PATIENCE_S)
            yield one

    live, notes, _ = run(Source(one_by_one()), detect=slow)
    live.start()
    assert live.wait(PATIENCE_S)
    first, *others = indices(notes)
    assert first <= 3
    assert others[0] >= 23
    assert others[-1] == 24  # one frame behind its keyframe is the last of 26
    assert [r.found.actions[0][0][1] for r in notes.results] == indices(notes)


def test_nothing_piles_up_however_slow_the_model_is():
    may_end = threading.Event()

    def stuck(clips):
        next(clips)
        assert may_end.wait(PATIENCE_S)
        yield from ()

    live, *_ = run(Source(frames(200)), detect=stuck)
    live.start()
    while live.figures.frames < 200:
        time.sleep(0.01)
    assert len(live._ring._ring) == 2 + 1 + 2
    may_end.set()
    assert live.wait(PATIENCE_S)


def test_what_is_shorter_than_a_clip_is_one():
    live, notes, _ = run(Source(frames(1)), spans=(8, 8))
    live.start()
    assert live.wait(PATIENCE_S)
    assert indices(notes) == [0]


@pytest.fixture
def short_pauses(monkeypatch):
    monkeypatch.setattr('stmixer_mm.projects.live.detection.FIRST_PAUSE_S', 0.01)
    monkeypatch.setattr('stmixer_mm.projects.live.detection.LONGEST_PAUSE_S', 0.04)


def test_a_stream_that_breaks_is_opened_again(short_pauses):
    """Each time after twice the pause; its frames count on, whatever their size."""
    gone, waiting = UserError('It is gone.'), threading.Event()

    def last():
        yield from frames(9, size=(8, 8))
        assert waiting.wait(PATIENCE_S)

    source = Source([*frames(9), gone], [gone], [gone], [gone], last(), is_endless=True)
    live, notes, said = run(source)
    live.start()
    while not (notes.results and notes.results[-1].size == (8, 8)):
        notes.wait_for(len(notes.results) + 1)
    assert live.figures.connections == 2
    assert live.figures.is_connected
    waiting.set()
    live.stop()
    pauses = ['0.01', '0.02', '0.04', '0.04']
    assert said[:4] == [f'It is gone. Next attempt in {s} s.' for s in pauses]
    assert notes.firsts == [0, 9]
    found = [result.found for result in notes.results]
    assert all(np.diff(indices(notes)) > 0)
    assert all(np.diff([one.time_s for one in found]) > 0)


def test_an_endless_stream_that_ends_is_opened_again(short_pauses):
    source = Source([*frames(9)], [*frames(9)], is_endless=True)
    live, notes, said = run(source)
    live.start()
    while notes.firsts != [0, 9]:
        time.sleep(0.01)
    live.stop()
    assert said[0] == 'made up ended. Next attempt in 0.01 s.'


def test_a_source_that_never_opened_is_an_error():
    live, *_ = run(Source([UserError('It is not there.')], is_endless=True))
    live.start()
    with pytest.raises(UserError, match='It is not there'):
        live.wait(PATIENCE_S)


@pytest.mark.parametrize('part', ['detection', 'listener'])
def test_who_fails_ends_all(part):
    def fail(*args):
        raise UserError('The disk is full.')

    live, notes, _ = run(Source(frames(9), is_endless=True), detect=find)
    if part == 'detection':
        live._detect = fail
    else:
        notes.on_result = fail
    live.start()
    with pytest.raises(UserError, match='The disk is full'):
        live.wait(PATIENCE_S)
    live.stop()


def test_stop_leaves_no_thread():
    before = set(threading.enumerate())

    def forever():
        for index in count():
            time.sleep(0.001)
            yield index / 10, np.zeros((4, 6, 3), np.uint8)

    live, notes, _ = run(Source(forever(), is_endless=True))
    live.start()
    assert not live.wait(0)
    notes.wait_for(3)
    live.stop()
    assert set(threading.enumerate()) == before


class Clock:
    """Time passes when something takes it."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(
            'stmixer_mm.projects.live.detection.time.monotonic', lambda: self.now
        )


@pytest.mark.parametrize(
    ('budget', 'interval_s', 'apart_s', 'missed'),
    [(1, 0, 0.4, 0), (0.5, 0, 0.8, 0), (1, 1.0, 1.0, 0), (0.5, 0.2, 0.8, 9)],
)
def test_keyframes_are_as_far_apart_as_the_budget_allows(
    monkeypatch, budget, interval_s, apart_s, missed
):
    """Detection takes 0.4 s; a frame comes each 0.1 s."""
    clock = Clock(monkeypatch)
    live, *_ = run(Source(), spans=(0, 0), budget=budget, interval_s=interval_s)
    clips, taken = live._newest_clips(), []
    live._wait_for_clip = _at_once(live, clock, live._wait_for_clip)
    for clip in islice(clips, 4):
        taken.append(clip.time_s)
        clock.now += 0.4
    assert np.diff(taken) == pytest.approx([apart_s] * 3)
    assert live.figures.missed == missed


def _at_once(live, clock, wait):
    """Let frames come until one can be taken, in this thread."""

    def wait_for_clip(due):
        picture = np.zeros((2, 2, 3), np.uint8)
        while due - clock.now > 1e-9:
            clock.now = round(clock.now + 0.1, 6)
        live._ring.append(clock.now, picture)
        return wait(due - 1e-6)

    return wait_for_clip


def test_latency_counts_from_capture(monkeypatch):
    """The frames behind the keyframe are waited for too: here one, of 0.1 s."""
    clock = Clock(monkeypatch)

    def one_by_one():
        for item in frames(30):
            clock.now += 0.1
            yield item

    def slow(clips):
        for one in find(clips):
            clock.now += 0.25
            yield one

    live, notes, _ = run(Source(one_by_one()), detect=slow)
    live._capture()  # all of it, so that one keyframe is left
    before = clock.now
    live._find()
    (result,) = notes.results
    assert result.found.frame_index == 28
    assert result.latency_s == pytest.approx(clock.now - (before - 0.1))
    assert live.figures.latency_s == pytest.approx([result.latency_s] * 2)
