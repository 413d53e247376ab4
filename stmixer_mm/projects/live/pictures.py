"""What was found drawn on the frames of a stream, at the stream's own pace."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from stmixer_mm.apis.rendering import annotated_frames
from stmixer_mm.projects.live.detection import Listener, LiveResult
from stmixer_mm.structures import Keyframe
from stmixer_mm.visualization.draw import MIN_SIDE

MAX_SIDE = 720  # pixels of a picture's short side
_KEPT_BYTES, _KEPT_S = 2**28, 10.0  # of frames that wait for the next keyframe
_LAGS = 256  # frames, the slowest of which says how much later pictures are shown


class _Frame(NamedTuple):
    index: int
    time_s: float
    came: float
    picture: np.ndarray


class LivePictures(Listener):
    """Frames with the persons of the keyframes around them.

    They are drawn when the keyframe behind them is known, so that boxes are on their
    persons, and shown as much later as the slowest of late, so that they flow evenly.
    Another thread iterates.

    Args:
        score_thr: Actions with lower scores are not drawn; may be changed.

    Attributes:
        watchers: How many want them, see :meth:`watched`; without any, nothing is drawn.
        dropped: Frames that there was no room to keep until they could be drawn.
    """

    def __init__(self, score_thr: float = 0.3) -> None:
        self.score_thr = score_thr
        self.watchers = self.dropped = 0
        self._changed = threading.Condition()  # guards what follows
        self._frames: deque[_Frame] = deque()
        self._bytes = 0
        self._found: deque[tuple[float, Keyframe]] = deque(maxlen=1024)
        self._connection = self._first = 0
        self._is_finished = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        with self._changed:
            self.watchers += 1
        try:
            yield
        finally:
            with self._changed:
                self.watchers -= 1

    def on_connection(self, index: int) -> None:
        with self._changed:
            self._connection += 1
            self._first = index
            self._frames.clear()
            self._found.clear()
            self._bytes = 0
            self._changed.notify_all()

    def on_frame(self, index: int, time_s: float, picture: np.ndarray) -> None:
        if not self.watchers:
            return
        frame = _Frame(index, time_s, time.monotonic(), _resize(picture))
        with self._changed:
            self._frames.append(frame)
            self._bytes += frame.picture.nbytes
            while (
                self._bytes > _KEPT_BYTES or self._frames[0].came < frame.came - _KEPT_S
            ):
                self._pop()
                self.dropped += 1
            self._changed.notify_all()

    def on_result(self, result: LiveResult) -> None:
        found = above(result.found, self.score_thr)
        with self._changed:
            if found.frame_index >= self._first:
                found = _scaled(found, _factor(result.size))
                self._found.append((time.monotonic(), found))
                self._changed.notify_all()

    def finish(self) -> None:
        """No more comes; what is here is drawn at once."""
        with self._changed:
            self._is_finished = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        """Seconds and drawn pictures; of one size until there is a new connection."""
        lags: deque[float] = deque(maxlen=_LAGS)
        while not (self._is_finished and not self._frames):
            with self._changed:
                connection = self._connection
            for frame, known_at, drawn in self._draw(connection):
                lags.append(known_at - frame.came)
                wait_s = frame.came + max(lags) - time.monotonic()
                with self._changed:
                    self._changed.wait_for(lambda: self._is_finished, max(wait_s, 0))
                yield frame.time_s, drawn

    def _draw(self, connection: int) -> Iterator[tuple[_Frame, float, np.ndarray]]:
        """Frames, when the last keyframe that they needed was known, and pictures."""
        current = first = None
        known_at = 0.0

        def frames() -> Iterator[tuple[int, np.ndarray]]:
            nonlocal current
            while (current := self._wait_for(connection, self._frames)) is not None:
                if first is None or current.index >= first:
                    yield current.index, current.picture

        def keyframes() -> Iterator[Keyframe]:
            nonlocal first, known_at
            while (known := self._wait_for(connection, self._found)) is not None:
                known_at, found = known
                first = found.frame_index if first is None else first
                yield found

        for _, drawn in annotated_frames(frames(), keyframes()):
            yield current, known_at, drawn

    def _wait_for(self, connection: int, items: deque) -> object | None:
        """The first of them, None when no more of a connection comes."""
        with self._changed:
            self._changed.wait_for(
                lambda: items or self._is_finished or connection != self._connection
            )
            if not items or connection != self._connection:
                return None
            return self._pop() if items is self._frames else items.popleft()

    def _pop(self) -> _Frame:
        frame = self._frames.popleft()
        self._bytes -= frame.picture.nbytes
        return frame


def above(found: Keyframe, score_thr: float) -> Keyframe:
    """The same without the actions whose score is lower."""
    return replace(
        found,
        persons=[
            replace(one, actions=[a for a in one.actions if a.score >= score_thr])
            for one in found.persons
        ],
    )


def _scaled(found: Keyframe, factor: float) -> Keyframe:
    persons = [
        replace(one, bbox=tuple(factor * side for side in one.bbox))
        for one in found.persons
    ]
    return replace(found, persons=persons)


def _factor(size: tuple[int, int]) -> float:
    short = min(size)
    return float(np.clip(short, MIN_SIDE, MAX_SIDE)) / short


def _resize(picture: np.ndarray) -> np.ndarray:
    factor = _factor(picture.shape[:2])
    if factor == 1:
        return picture
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(picture, None, fx=factor, fy=factor, interpolation=how)
