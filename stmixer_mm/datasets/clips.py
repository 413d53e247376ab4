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
        self._done = self._last = -1  # last interval with a keyframe; that keyframe
        self._before = self._step = 0.0

    def at_frame(self, index: int, since: float) -> list[tuple[float, int]]:
        """(seconds, number) of the keyframe that this frame makes known, if any."""
        before, self._before = self._before, since
        self._step = since - before
        interval = math.floor((since - self.start) / self.interval_s + 1e-6)
        return self._once(interval, index, before, self._step, last=index)

    def at_end(self, count: int, frame_s: float) -> list[tuple[float, int]]:
        """The same while the last frame lasts, as long as the one before."""
        step = self._step or frame_s
        stop = min(self._before + step, self.end)
        interval = math.ceil((stop - self.start) / self.interval_s - 1e-6) - 1
        return self._once(interval, count, self._before, step, last=count - 1)

    def _once(
        self, interval: int, index: int, before: float, step: float, *, last: int
    ) -> list[tuple[float, int]]:
        wanted = self.start + interval * self.interval_s
        if interval <= self._done or wanted >= self.end:
            return []
        self._done = interval
        place = index - 1 + (wanted - before) / step if step else index
        number = max(nearest_frame(min(place, last)), 0)
        if number == self._last:
            return []
        self._last = number
        return [(wanted, number)]


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
        self._newest: list[tuple[float, int]] = []

    def at_frame(self, index: int, since: float) -> list[tuple[float, int]]:
        if since >= self.end:
            return self.at_end()
        if since < self.start:
            return []
        self._first = index if self._first is None else self._first
        self._newest = [(since, index)]
        return self._newest if (index - self._first) % self.step == 0 else []

    def at_end(self, *_: object) -> list[tuple[float, int]]:
        newest, self._newest = self._newest, []
        return newest


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
        keyframes: Chooses the keyframes.
        ring: Defines the frames of a clip; it is filled here.
        inside: Move clips to lie within the stream. Else those at its ends lack frames.

    Raises:
        UserError: those of the stream; or it ended before the first keyframe.
    """
    waiting: deque[tuple[float, int]] = deque()
    last = -1

    def clips(is_end: bool) -> Iterator[Clip]:
        nonlocal last
        while waiting:
            since, number = waiting[0]
            if inside:
                number = max(number, ring.before)
                if is_end:
                    number = max(min(number, ring.count - 1 - ring.after), 0)
            if not is_end and number + ring.after >= ring.count:
                return
            waiting.popleft()
            if not inside or number > last:
                yield ring.clip(number, None if inside else frames.start_s + since)
            last = number

    for time_s, picture in frames:
        ring.append(time_s, picture)
        since = time_s - frames.start_s
        waiting.extend(keyframes.at_frame(ring.count - 1, since))
        yield from clips(is_end=False)
        if since >= keyframes.end and not waiting:
            return
    if ring.count:
        waiting.extend(keyframes.at_end(ring.count, 1 / frames.fps))
    yield from clips(is_end=True)
    if last < 0:
        raise UserError(
            f'{frames.name} has no frame from {keyframes.start:g} s on: it ended after '
            f'{frames.count} frames.'
        )
