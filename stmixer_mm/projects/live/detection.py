"""Detection in a stream as it comes: what comes too late is left out, nothing piles up.

Capture and detection have a thread each, and a listener may have one more. The buffers
between them are bounded, and the newest wins::

    capture --(ring of the last frames)--> newest clip --> detection --> listeners

Frames and seconds are counted from the first frame on, across all connections.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple, Protocol

import numpy as np

from stmixer_mm.apis.rendering import follow_persons
from stmixer_mm.datasets.streams import (
    Clip,
    FrameStream,
    RecentFrames,
    is_live,
    name_source,
    open_source,
    single_source,
)
from stmixer_mm.datasets.videos import Video
from stmixer_mm.errors import UserError
from stmixer_mm.structures import Keyframe

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # before a stream is opened again
STEADY_S = 10.0  # a stream that lasted longer is opened again after the first pause
LEAVE_S = 3.0  # until a thread that waits for its source is left to itself
_KEPT_TIMES, _KEPT_LATENCIES = 2**15, 512


class LiveResult(NamedTuple):
    """What was found at a keyframe of a stream."""

    found: Keyframe
    size: tuple[int, int]  # (h, w) of the frame
    # Seconds since 1970 when the keyframe (if foretold: the last frame seen) came.
    captured_at: float
    latency_s: float  # from then until it was found


class Listener:
    """Told what happens, in the thread where it happens: it must not wait."""

    def on_connection(self, index: int) -> None:
        """The frames from this number on are those of a new connection."""

    def on_frame(self, index: int, time_s: float, picture: np.ndarray) -> None:
        """A frame was captured."""

    def on_result(self, result: LiveResult) -> None:
        """What a keyframe shows is known."""


class Figures(NamedTuple):
    """What has happened so far."""

    frames: int  # captured
    keyframes: int
    missed: int  # keyframes left out, because those before took too long
    connections: int
    keyframes_per_s: float  # of late
    latency_s: tuple[float, float]  # of late: median and 95th percentile
    is_connected: bool


class Source(Protocol):
    """Frames of something that each iteration opens anew."""

    name: str
    is_endless: bool  # whether it is to be opened again when it ends; may change

    def __iter__(self) -> Generator[tuple[float, np.ndarray], None, None]:
        """Seconds and frames, see :class:`.FrameStream`."""


class LiveDetection:
    """Detects in the newest clip that a source has.

    Args:
        source: Where the frames come from.
        detect: Detects in clips, taking them one by one, as :func:`.detect_clips` does.
        spans: The first arguments of :class:`.RecentFrames`.
        interval_s: Least seconds from one keyframe to the next; 0: as fast as it can.
        budget: Share of the time that detection may take, in (0, 1]; how long the last
            keyframes took decides how far apart the next ones are.
        listeners: See :class:`Listener`.
        say: Called with what the user should know, in a sentence.
    """

    def __init__(
        self,
        source: Source,
        detect: Callable[[Iterator[Clip]], Iterator[Keyframe]],
        spans: Sequence[int | float],
        *,
        interval_s: float = 0.0,
        budget: float = 1.0,
        listeners: Iterable[Listener] = (),
        say: Callable[[str], object] = print,
    ) -> None:
        self._source, self._detect, self._spans = source, detect, spans
        self._interval_s, self._budget = interval_s, budget
        self._listeners, self._say = [*listeners], say
        self._error: BaseException | None = None
        self._changed = threading.Condition()  # guards what follows
        self._is_stopped = self._is_over = self._is_connected = False
        self._ring = RecentFrames(*spans)
        self._came: deque[float] = deque(maxlen=_KEPT_TIMES)  # of the last frames
        self._latencies: deque[float] = deque(maxlen=_KEPT_LATENCIES)
        self._found_at: deque[float] = deque(maxlen=32)
        self._keyframes = self._connections = 0
        self._missed = 0.0
        self._last = -1  # frame that a clip was cut at
        self._threads = [
            threading.Thread(target=self._run, args=[part], name=name, daemon=True)
            for name, part in (('capture', self._capture), ('detection', self._find))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether it is over: the source ended, or failed.

        Raises:
            Exception: what made a thread fail.
        """
        thread = self._threads[1]
        thread.join(timeout_s)
        if self._error is not None:
            raise self._error
        return not thread.is_alive()

    def stop(self) -> None:
        """End the threads, except one that a silent source blocks."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(LEAVE_S)

    @property
    def figures(self) -> Figures:
        with self._changed:
            latencies = [*self._latencies] or [math.nan]
            found_at = [*self._found_at, time.monotonic()]
            return Figures(
                frames=self._ring.count,
                keyframes=self._keyframes,
                missed=int(self._missed),
                connections=self._connections,
                keyframes_per_s=self._rate(found_at),
                latency_s=tuple(np.percentile(latencies, [50, 95]).tolist()),
                is_connected=self._is_connected,
            )

    @staticmethod
    def _rate(times: list[float]) -> float:
        return (len(times) - 1) / max(times[-1] - times[0], 1e-3)

    def _run(self, part: Callable[[], None]) -> None:
        try:
            part()
        except BaseException as error:
            self._error = self._error or error
            with self._changed:
                self._is_stopped = True
                self._changed.notify_all()

    # Capture

    def _capture(self) -> None:
        begin: float | None = None
        pause_s = FIRST_PAUSE_S
        while not self._is_stopped:
            first, opened_at = self._ring.count, time.monotonic()
            reason = f'{self._source.name} ended.'
            try:
                with closing(iter(self._source)) as frames:
                    for time_s, picture in frames:
                        if self._is_stopped:
                            return
                        now = time.monotonic()
                        begin = now if begin is None else begin
                        if self._ring.count == first:
                            offset_s = now - begin - time_s
                            self._connect()
                        self._take(offset_s + time_s, picture)
            except UserError as error:
                if begin is None or not self._source.is_endless:
                    raise
                reason = str(error)
            self._is_connected = False
            if not self._source.is_endless:
                break
            if self._ring.count > first and time.monotonic() - opened_at > STEADY_S:
                pause_s = FIRST_PAUSE_S
            self._say(f'{reason} Next attempt in {pause_s:g} s.')
            with self._changed:
                self._changed.wait_for(lambda: self._is_stopped, pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _connect(self) -> None:
        with self._changed:
            index = self._ring.count
            self._ring = RecentFrames(*self._spans, count=index)
            self._connections += 1
            self._is_connected = True
        for listener in self._listeners:
            listener.on_connection(index)

    def _take(self, time_s: float, picture: np.ndarray) -> None:
        with self._changed:
            index = self._ring.count
            self._ring.append(time_s, picture)
            self._came.append(time.monotonic())
            self._changed.notify_all()
        for listener in self._listeners:
            listener.on_frame(index, time_s, picture)

    # Detection

    def _find(self) -> None:
        for found in follow_persons(self._detect(self._newest_clips())):
            now = time.monotonic()
            with self._changed:
                seen = min(found.frame_index, self._clip.frames[-1])
                came = self._came[max(seen - self._ring.count, -len(self._came))]
                self._latencies.append(now - came)
                self._found_at.append(now)
                self._keyframes += 1
                size = self._clip.size
            result = LiveResult(found, size, time.time() - (now - came), now - came)
            for listener in self._listeners:
                listener.on_result(result)

    def _newest_clips(self) -> Iterator[Clip]:
        due = None
        busy_s: deque[float] = deque(maxlen=9)  # of the last keyframes
        while True:
            with self._changed:
                clip = self._wait_for_clip(due or 0.0)
            if clip is None:
                return
            self._clip = clip._replace(sample={})
            begin = time.monotonic()
            yield clip
            busy_s.append(time.monotonic() - begin)
            step = max(self._interval_s, float(np.median(busy_s)) / self._budget)
            self._missed += step / self._interval_s - 1 if self._interval_s else 0
            # Evenly, unless it came far too late.
            due = step + (begin if due is None else max(due, begin - step / 2))

    def _wait_for_clip(self, due: float) -> Clip | None:
        while not self._is_stopped:
            ring = self._ring
            newest = ring.count - 1 - ring.after
            if self._is_over:  # what came is shorter than a clip
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


class LiveSource:
    """What :func:`.open_source` opens, opened anew by each iteration.

    What has an end (files, also at a URL, and folders of pictures) is read at its own
    pace, as a camera would show it.

    Args:
        source: A single one.
        fps, frame_size: See :func:`.open_source`.

    Raises:
        UserError: there is more than one; when iterating: it does not open.
    """

    def __init__(
        self,
        source: str,
        *,
        fps: float | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> None:
        self._source = single_source(source)
        self._options = dict(fps=fps, frame_size=frame_size)
        self.name = name_source(self._source)
        self.is_endless = is_live(self._source) and self._source != '-'

    def __iter__(self) -> Generator[tuple[float, np.ndarray], None, None]:
        opened = open_source(
            self._source, **self._options, on_damage=lambda damage: None
        )
        is_paced, begin = not is_live(self._source), None
        with closing(_frames_of(opened)) as frames:
            for time_s, picture in frames:
                if begin is None:
                    begin = time.monotonic() - time_s
                    if (
                        isinstance(opened, FrameStream)
                        and opened.duration_s is not None
                    ):
                        self.is_endless, is_paced = False, True
                if is_paced:
                    time.sleep(max(begin + time_s - time.monotonic(), 0))
                yield time_s, picture


def _frames_of(
    opened: Video | FrameStream,
) -> FrameStream | Generator[tuple[float, np.ndarray], None, None]:
    if isinstance(opened, FrameStream):
        return opened
    return (
        (float(opened.times[index]), picture)
        for index, picture in opened.pictures(range(len(opened)))
        if picture is not None
    )
