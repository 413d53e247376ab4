"""Detections drawn on the frames of a stream, shown at the pace of the stream."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from stmixer_mm.apis.rendering import Annotator
from stmixer_mm.projects.live.detection import Listener, LiveResult, above
from stmixer_mm.structures import Keyframe
from stmixer_mm.visualization.draw import MIN_SIDE

LEAST_SCORE = 0.05  # lowest threshold
MAX_SIDE = 720  # pixels of the short side of a picture
_MAX_WAITING = 128  # frames that wait for the next keyframe
_LAGS = 256  # frames, whose largest delay is that of the next picture


class _Frame(NamedTuple):
    index: int
    captured_at: float
    picture: np.ndarray


class LivePictures(Listener):
    """Frames with the persons of the keyframes around them.

    Frames are drawn when the keyframe after them is known, so that boxes follow the
    persons, and shown with the largest delay of the last ones, so that they flow evenly.
    Another thread iterates.

    Args:
        score_thr: Actions with lower scores are not drawn; may be changed.

    Attributes:
        watchers: Number of open :meth:`watched` blocks; without any, nothing is drawn.
        dropped: Frames dropped because too many waited.
    """

    def __init__(self, score_thr: float = 0.3) -> None:
        self.score_thr = score_thr
        self.watchers = self.dropped = 0
        self._changed = threading.Condition()  # guards what follows
        self._frames: deque[_Frame] = deque(maxlen=_MAX_WAITING)
        self._keyframes: deque[tuple[float, Keyframe]] = deque(maxlen=1024)
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
            self._keyframes.clear()

    def on_frame(self, index: int, picture: np.ndarray) -> None:
        if not self.watchers:
            return
        size = _size_of(*picture.shape[:2])
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        frame = _Frame(index, time.monotonic(), picture)
        with self._changed:
            self.dropped += len(self._frames) == _MAX_WAITING
            self._frames.append(frame)
            self._changed.notify_all()

    def on_result(self, result: LiveResult) -> None:
        keyframe = above(result.keyframe, self.score_thr)
        height, width = result.size
        scale = np.divide(_size_of(height, width), (width, height))
        with self._changed:
            if keyframe.frame_index >= self._first:
                self._keyframes.append((time.monotonic(), _scaled(keyframe, scale)))
                self._changed.notify_all()

    def finish(self) -> None:
        """Draw the remaining frames at once, then end."""
        with self._changed:
            self._is_finished = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Drawn pictures."""
        lags: deque[float] = deque(maxlen=_LAGS)
        previous_keyframe, connection = None, 0
        while True:
            with self._changed:
                self._changed.wait_for(self._can_draw)
                if self._connection != connection:
                    previous_keyframe, connection = None, self._connection
                known_at, next_keyframe = time.monotonic(), None
                if self._keyframes:
                    known_at, next_keyframe = self._keyframes.popleft()
                frames = self._frames_before(next_keyframe)
            if previous_keyframe is not None:
                keyframes = [previous_keyframe]
                if next_keyframe is not None:
                    keyframes.append(next_keyframe)
                annotator = Annotator(keyframes)
                for frame in frames:
                    picture = annotator.draw(frame.index, frame.picture)
                    lags.append(known_at - frame.captured_at)
                    wait_s = frame.captured_at + max(lags) - time.monotonic()
                    with self._changed:
                        self._changed.wait_for(
                            lambda: self._is_finished, max(wait_s, 0)
                        )
                    yield picture
            if next_keyframe is None:
                return
            previous_keyframe = next_keyframe

    def _can_draw(self) -> bool:
        """True if all frames before the next keyframe have come."""
        frames, keyframes = self._frames, self._keyframes
        is_known = (
            frames and keyframes and frames[-1].index >= keyframes[0][1].frame_index
        )
        return bool(is_known or self._is_finished)

    def _frames_before(self, keyframe: Keyframe | None) -> list[_Frame]:
        frames = []
        while self._frames and (
            keyframe is None or self._frames[0].index < keyframe.frame_index
        ):
            frames.append(self._frames.popleft())
        return frames


def _size_of(height: int, width: int) -> tuple[int, int]:
    """Width and height of the pictures of frames."""
    side = np.clip(min(height, width), MIN_SIDE, MAX_SIDE) / min(height, width)
    return round(side * width), round(side * height)


def _scaled(keyframe: Keyframe, scale: np.ndarray) -> Keyframe:
    """A keyframe whose x and y are scaled."""
    persons = [
        replace(person, bbox=tuple((person.bbox * np.tile(scale, 2)).tolist()))
        for person in keyframe.persons
    ]
    return replace(keyframe, persons=persons)
