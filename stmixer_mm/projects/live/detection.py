"""Detection in a live stream: late frames are left out, and no queue grows.

Capture and detection run in a thread each, and a listener may have one more. Buffers
between them are bounded, and the newest frames are kept::

    capture --(ring of the last frames)--> newest clip --> detection --> listeners

Frames and seconds are counted from the first frame on, across all connections.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from stmixer_mm.apis.rendering import follow_persons
from stmixer_mm.datasets.clips import Clip, RecentFrames
from stmixer_mm.datasets.streams import (
    FrameStream,
    is_live,
    name_source,
    open_source,
    read_part,
    single_source,
)
from stmixer_mm.datasets.videos import DamagedVideo
from stmixer_mm.errors import UserError
from stmixer_mm.records import to_plain
from stmixer_mm.structures import Keyframe

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # before a stream is opened again
STEADY_S = 10.0  # a stream that lasted longer is opened again after the first pause
LEAVE_S = 3.0  # until capture, if its source blocks it, is abandoned
_NUM_TIMES, _NUM_LATENCIES = 2**15, 512  # of the last frames and keyframes


class LiveResult(NamedTuple):
    """Detections at a keyframe of a stream."""

    keyframe: Keyframe
    size: tuple[int, int]  # (h, w) of the frame
    # Seconds since 1970 when the keyframe (if predicted ahead: the last frame) came.
    captured_at: float
    latency_s: float  # from then until the detections


class Listener:
    """Receives events of a stream, in the thread of each; must not block."""

    def on_connection(self, index: int) -> None:
        """A connection was opened, whose first frame has this number."""

    def on_frame(self, index: int, picture: np.ndarray) -> None:
        """A frame was captured."""

    def on_result(self, result: LiveResult) -> None:
        """The persons of a keyframe were detected."""


class LiveDetection:
    """Detects persons in the newest clip of a source, repeatedly.

    Args:
        source: Yields seconds and frames each time it is iterated; has a ``name`` and
            ``is_endless``, whether to open it again when it ends.
        detect: Detects in clips, taking them one by one, as :func:`.detect_clips`.
        spans: First arguments of :class:`.RecentFrames`.
        interval_s: Minimum seconds between keyframes.
        log: Called with messages for the user.

    Attributes:
        listeners: See :class:`Listener`.
        newest: The last result, None before the first.
        is_connected: Whether frames come.
    """

    def __init__(
        self,
        source: 'LiveSource',
        detect: Callable[[Iterator[Clip]], Iterator[Keyframe]],
        spans: Sequence[int | float],
        interval_s: float = 0.0,
        *,
        log: Callable[[str], object] = print,
    ) -> None:
        self.name = source.name
        self._source, self._detect, self._spans = source, detect, spans
        self._interval_s, self._log = interval_s, log
        self.listeners: list[Listener] = []
        self.newest: LiveResult | None = None
        self.is_connected = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()  # guards what follows
        self._is_stopped = self._is_over = False
        self._ring = RecentFrames(*spans)
        self._capture_times: deque[float] = deque(maxlen=_NUM_TIMES)
        self._latencies: deque[float] = deque(maxlen=_NUM_LATENCIES)
        self._result_times: deque[float] = deque(maxlen=32)
        self._keyframes = self._connections = 0
        self._last = -1  # frame of the last clip
        self._begin: float | None = None  # when the first frame came
        # Until Python 3.13, a join that a signal interrupts takes the thread for ended.
        self._ended = threading.Event()
        self._capturing, self._detecting = (
            threading.Thread(target=self._run, args=[part], name=name, daemon=True)
            for name, part in (
                ('capture', self._capture),
                ('detection', self._detect_newest),
            )
        )

    def start(self) -> None:
        self._capturing.start()
        self._detecting.start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Return whether the source has ended; raise the error of a thread."""
        is_over = self._ended.wait(timeout_s)
        if self._error is not None:
            raise self._error
        return is_over

    def stop(self) -> None:
        """End the threads, detection after its clip, capture unless its source blocks."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self._capturing.join(LEAVE_S)
        self._detecting.join()  # the end of the interpreter would abort the runtime in it

    def figures(self) -> dict[str, float]:
        """Counts since the start, and recent speed, by name."""
        with self._changed:
            latencies = [*self._latencies]
            result_times = [*self._result_times, time.monotonic()]
            seconds = result_times[-1] - result_times[0]
            rate = (len(result_times) - 1) / max(seconds, 1e-3)
            figures = {
                'frames': self._ring.count,
                'keyframes': self._keyframes,
                'keyframes per second': round(rate, 1),
                'connections': self._connections,
            }
        if latencies:
            median, high = np.percentile(latencies, [50, 95])
            figures['latency (median), s'] = round(float(median), 2)
            figures['latency (95 %), s'] = round(float(high), 2)
        return figures

    def _run(self, part: Callable[[], None]) -> None:
        try:
            part()
        except BaseException as error:
            self._error = self._error or error
            with self._changed:
                self._is_stopped = True
                self._changed.notify_all()
        finally:
            if part == self._detect_newest:
                self._ended.set()

    # Capture

    def _capture(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._is_stopped:
            opened_at, reason = time.monotonic(), f'{self.name} ended.'
            try:
                self._read_connection()
            except UserError as error:
                if self._begin is None or not self._source.is_endless:
                    raise
                reason = str(error)
            if self._is_stopped or not self._source.is_endless:
                break
            if self.is_connected and time.monotonic() - opened_at > STEADY_S:
                pause_s = FIRST_PAUSE_S
            self.is_connected = False
            self._log(f'{reason} Next attempt in {pause_s:g} s.')
            with self._changed:
                self._changed.wait_for(lambda: self._is_stopped, pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        with self._changed:
            self._is_over, self.is_connected = True, False
            self._changed.notify_all()

    def _read_connection(self) -> None:
        with closing(iter(self._source)) as frames:
            for time_s, picture in frames:
                if self._is_stopped:
                    return
                if not self.is_connected:
                    clock_s = time.monotonic()
                    self._begin = clock_s if self._begin is None else self._begin
                    offset_s = clock_s - self._begin - time_s
                    self._connect()
                self._take(offset_s + time_s, picture)

    def _connect(self) -> None:
        with self._changed:
            index = self._ring.count
            self._ring = RecentFrames(*self._spans, count=index)
            self._connections += 1
            self.is_connected = True
        for listener in self.listeners:
            listener.on_connection(index)

    def _take(self, time_s: float, picture: np.ndarray) -> None:
        with self._changed:
            index = self._ring.count
            self._ring.append(time_s, picture)
            self._capture_times.append(time.monotonic())
            self._changed.notify_all()
        for listener in self.listeners:
            listener.on_frame(index, picture)

    # Detection

    def _detect_newest(self) -> None:
        for keyframe in follow_persons(self._detect(self._newest_clips())):
            clock_s = time.monotonic()
            with self._changed:
                frame_index = min(keyframe.frame_index, self._clip.frames[-1])
                place = max(frame_index - self._ring.count, -len(self._capture_times))
                latency_s = clock_s - self._capture_times[place]
                self._latencies.append(latency_s)
                self._result_times.append(clock_s)
                self._keyframes += 1
                size = self._clip.size
            result = LiveResult(keyframe, size, time.time() - latency_s, latency_s)
            self.newest = result
            for listener in self.listeners:
                listener.on_result(result)

    def _newest_clips(self) -> Iterator[Clip]:
        due = None
        while True:
            with self._changed:
                clip = self._wait_for_clip(due or 0.0)
            if clip is None:
                return
            self._clip = clip._replace(sample={})
            begin = time.monotonic()
            yield clip
            # Even intervals, unless this clip was far too late.
            late = begin if due is None else begin - self._interval_s / 2
            due = max(due or 0.0, late) + self._interval_s

    def _wait_for_clip(self, due: float) -> Clip | None:
        while not self._is_stopped:
            ring = self._ring
            newest = ring.count - 1 - ring.after
            if self._is_over:  # maybe before the first clip was complete
                newest = max(newest, 0) if self._last < 0 and ring.count else newest
                due = 0.0
            wait_s = due - time.monotonic()
            if newest > self._last and wait_s <= 0 and newest >= ring.oldest:
                self._last = newest
                return ring.clip(newest)
            if self._is_over:
                return None
            self._changed.wait(max(wait_s, 0.0) or None)
        return None


class JsonLines(Listener):
    """Writes a line for each keyframe, at once.

    The file is written in place: others read it while the stream goes on, and a kill
    loses no line.

    Args:
        file: Where to. A path is opened, and emptied, when the source is open.
        score_thr: Leave out actions with lower scores.
    """

    def __init__(self, file: TextIO | str | Path, score_thr: float) -> None:
        self._file, self._score_thr = file, score_thr

    def on_connection(self, index: int) -> None:
        if isinstance(self._file, str | Path):
            self._file = open(self._file, 'w', encoding='utf-8')  # noqa: SIM115

    def on_result(self, result: LiveResult) -> None:
        captured_at = datetime.fromtimestamp(result.captured_at).astimezone()
        height, width = result.size
        line = dict(
            captured_at=captured_at.isoformat(timespec='milliseconds'),
            latency_s=round(result.latency_s, 3),
            width=width,
            height=height,
            **to_plain(above(result.keyframe, self._score_thr)),
        )
        print(json.dumps(line), file=self._file, flush=True)


def above(keyframe: Keyframe, score_thr: float) -> Keyframe:
    """A keyframe without the actions that have a lower score."""
    persons = [
        replace(person, actions=[a for a in person.actions if a.score >= score_thr])
        for person in keyframe.persons
    ]
    return replace(keyframe, persons=persons)


class LiveSource:
    """A source of :func:`.open_source` that each iteration opens anew.

    Files, also at a URL, and folders of pictures are read at their own pace.

    Raises:
        UserError: there are several sources; when iterating: it does not open.
    """

    def __init__(self, source: str) -> None:
        self._source = single_source(source)
        self.name = name_source(self._source)
        self.is_endless = is_live(self._source) and self._source != '-'

    def __iter__(self) -> Generator[tuple[float, np.ndarray], None, None]:
        opened = open_source(self._source, on_damage=_ignore)
        frames = read_part(opened, on_damage=_ignore)
        is_paced, begin = not is_live(self._source), None
        with closing(opened if isinstance(opened, FrameStream) else frames):
            for _, time_s, picture in frames:
                if begin is None:
                    begin = time.monotonic() - time_s
                    if getattr(opened, 'duration_s', None) is not None:  # has an end
                        self.is_endless, is_paced = False, True
                if is_paced:
                    time.sleep(max(begin + time_s - time.monotonic(), 0))
                yield time_s, picture


def _ignore(damage: DamagedVideo) -> None:
    """Leave out a frame that cannot be decoded."""
