"""Clips cut from the frames of a stream as they come.

Only the frames that a clip can still need are kept.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from stmixer_mm.datasets.frames import nearest_frame
from stmixer_mm.datasets.streams import FPS, FrameStream
from stmixer_mm.datasets.videos import Frames
from stmixer_mm.errors import UserError


class Clip(NamedTuple):
    """Frames around a keyframe, or before one that is predicted ahead."""

    time_s: float  # of the keyframe, as it was asked for
    frame_index: int  # of the keyframe, counted from 0 since the source began
    frames: range  # the numbers of the frames from the clip's first to its last
    times: np.ndarray  # of these, seconds
    size: tuple[int, int]  # (h, w) of the frames
    sample: dict  # input of the pipeline


class RecentFrames:
    """A ring of the last frames of a stream, from which clips are cut.

    Args:
        before, after: Frames of a clip before and after the one that it is cut at.
        ahead_s: Seconds from there to the keyframe.
        name: Of the source.
        count: Frames that came before and are not kept.
        fps: Their rate, until their times tell it.
    """

    def __init__(
        self,
        before: int,
        after: int,
        ahead_s: float = 0.0,
        *,
        name: str = 'stream',
        count: int = 0,
        fps: float = FPS,
    ) -> None:
        self.before, self.after, self.ahead_s = before, after, ahead_s
        self.name, self._nominal_fps = name, fps
        self.count = count  # frames since the source began
        self._first: tuple[int, float] | None = None  # number and time
        # One more: only the frame after a keyframe may decide that it is one.
        self._ring: deque[tuple[float, np.ndarray]] = deque(maxlen=before + after + 2)

    @property
    def oldest(self) -> int:
        """The number of the first frame that is kept."""
        return self.count - len(self._ring)

    def append(self, time_s: float, picture: np.ndarray) -> None:
        self._first = self._first or (self.count, time_s)
        self._ring.append((time_s, picture))
        self.count += 1

    def _frame_at(self, time_s: float) -> int:
        """Number of the frame at a future time, if frames keep their rate."""
        (first, start_s), (last_s, _) = self._first, self._ring[-1]
        last = self.count - 1
        fps = (last - first) / (last_s - start_s) if last > first else self._nominal_fps
        return last + nearest_frame((time_s - last_s) * fps)

    def clip(self, keyframe: int, time_s: float | None = None) -> Clip:
        """The clip around a frame of the ring, less the frames that the ring lacks.

        Args:
            keyframe: Number of the frame, from 0; with ``ahead_s`` the clip's last one.
            time_s: The time to give it; by default its own.
        """
        oldest = self.oldest
        first = max(keyframe - self.before, oldest)
        frames = range(first, min(keyframe + self.after + 1, self.count))
        times, pictures = zip(*(self._ring[n - oldest] for n in frames), strict=True)
        place = keyframe - first
        time_s = times[place] if time_s is None else time_s
        sample = dict(
            filename=self.name,
            video_id=self.name,
            timestamp=time_s,
            img_key=f'{self.name},{time_s:g}',
            frame_index=place,
            total_frames=len(frames),
            fps=(len(frames) - 1) / (times[-1] - times[0]) if times[1:] else FPS,
            video_reader=_Pictures(pictures),
            start_index=0,
            modality='RGB',
        )
        size = pictures[0].shape[:2]
        if self.ahead_s:
            time_s += self.ahead_s
            keyframe = self._frame_at(time_s)
        return Clip(time_s, keyframe, frames, np.array(times), size, sample)


class _Pictures(list):
    """Pictures that are read like those of a :class:`.Video`."""

    def get_batch(self, indices: Iterable[int]) -> Frames:
        return Frames(self[index] for index in map(int, indices))


class EvenTimes:
    """Keyframes of a stream: those nearest to times at even intervals.

    Args:
        interval_s: Seconds from one to the next; no frame is taken twice.
        start, end: Seconds since the first frame; the first keyframe is at ``start``.
    """

    def __init__(
        self, interval_s: float = 1.0, start: float = 0.0, end: float | None = None
    ) -> None:
        self.interval_s, self.start = interval_s, start
        self.end = math.inf if end is None else end
        self.is_over = False
        self._done = self._last = -1  # last interval with a keyframe; that keyframe
        self._origin = self._before = self._step = 0.0

    def at_frame(self, index: int, time_s: float) -> Iterator[tuple[float, int]]:
        """(seconds, number) of the keyframe that this frame makes known, if any."""
        if index == 0:
            self._origin = time_s
        since = time_s - self._origin
        number = math.floor((since - self.start) / self.interval_s + 1e-6)
        wanted = self.start + number * self.interval_s
        self.is_over = since >= self.end
        if number > self._done and wanted < self.end:
            share = (wanted - self._before) / (since - self._before) if index else 1.0
            self._done = number
            yield from self._once(wanted, index - 1 + share)
        self._step, self._before = since - self._before, since

    def at_end(self, count: int, fps: float) -> Iterator[tuple[float, int]]:
        """The same while the last frame lasts, as long as the one before."""
        stop = min(self._before + (self._step or 1 / fps), self.end)
        number = math.ceil((stop - self.start) / self.interval_s - 1e-6) - 1
        if number > self._done:
            wanted = self.start + number * self.interval_s
            place = count - 1 + (wanted - self._before) / (self._step or 1 / fps)
            yield from self._once(wanted, min(place, count - 1))

    def _once(self, wanted: float, place: float) -> Iterator[tuple[float, int]]:
        number = max(nearest_frame(place), 0)
        if number != self._last:
            self._last = number
            yield self._origin + wanted, number


class EvenFrames(EvenTimes):
    """Keyframes of a stream at every ``step``-th frame, and at the last one.

    Args:
        step: Frames from one to the next.
        start, end: Seconds since the first frame.
    """

    def __init__(self, step: int, start: float = 0.0, end: float | None = None) -> None:
        super().__init__(start=start, end=end)
        self.step = step
        self._first: int | None = None

    def at_frame(self, index: int, time_s: float) -> Iterator[tuple[float, int]]:
        if index == 0:
            self._origin = time_s
        since = time_s - self._origin
        if since >= self.end:
            if not self.is_over and self._first is not None:
                yield time_s, index - 1
            self.is_over = True
        elif since >= self.start:
            self._first = index if self._first is None else self._first
            if (index - self._first) % self.step == 0:
                yield time_s, index
        self._before = since

    def at_end(self, count: int, fps: float) -> Iterator[tuple[float, int]]:
        if not self.is_over and self._first is not None:
            yield self._origin + self._before, count - 1


def cut_clips(
    frames: FrameStream,
    keyframes: EvenTimes,
    ring: RecentFrames,
    *,
    inside: bool = False,
) -> Iterator[Clip]:
    """Clips around the keyframes of a stream, each as soon as its last frame is here.

    Args:
        frames: The stream.
        keyframes: Says which frames they are.
        ring: Says what a clip spans; it is filled here.
        inside: Move clips to lie within the stream. Else those at its ends lack frames.

    Raises:
        UserError: those of the stream; or it ended before the first keyframe.
    """
    waiting: deque[tuple[float, int]] = deque()
    last = -1

    def clips(is_end: bool) -> Iterator[Clip]:
        nonlocal last
        while waiting:
            time_s, number = waiting[0]
            if inside:
                number = max(number, ring.before)
                if is_end:
                    number = max(min(number, ring.count - 1 - ring.after), 0)
            if not is_end and number + ring.after >= ring.count:
                return
            waiting.popleft()
            if not inside or number > last:
                yield ring.clip(number, None if inside else time_s)
            last = number

    for time_s, picture in frames:
        ring.append(time_s, picture)
        waiting.extend(keyframes.at_frame(ring.count - 1, time_s))
        yield from clips(is_end=False)
        if keyframes.is_over and not waiting:
            break
    else:
        if ring.count:
            waiting.extend(keyframes.at_end(ring.count, frames.fps))
        yield from clips(is_end=True)
    if last < 0:
        raise UserError(
            f'{frames.name} has no frame from {keyframes.start:g} s on: it ended after '
            f'{frames.count} frames.'
        )
