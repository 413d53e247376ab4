"""Clips cut from the frames of a source as they come.

Files and streams are cut alike, and only the frames that a clip can still need are kept.
Those of a file are numbers until a clip is decoded.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from stmixer_mm.datasets.frames import has_reached, nearest_frame
from stmixer_mm.datasets.streams import FPS, FrameStream, name_source
from stmixer_mm.datasets.videos import Frames, Video
from stmixer_mm.errors import UserError

SLACK_S = 1e-6  # of times that are equal up to rounding


class Clip(NamedTuple):
    """Frames around a keyframe, or before one that is predicted ahead."""

    time_s: float  # of the keyframe, as it was asked for
    frame_index: int  # of the keyframe, counted from 0 since the source began
    frames: range  # the numbers of the frames from the clip's first to its last
    times: np.ndarray  # of these, seconds
    size: tuple[int, int]  # (h, w) of the frames
    sample: dict  # input of the pipeline


class RecentFrames:
    """A ring of the last frames of a source, from which clips are cut.

    Args:
        num_before, num_after: Frames of a clip before and after the one that it is cut at.
        ahead_s: Seconds from there to the keyframe.
        name: Of the source.
        count: Frames that came before and are not kept.
        fps: Their rate, until their times tell it.
        video: The file whose frames are appended as numbers.
    """

    def __init__(
        self,
        num_before: int,
        num_after: int,
        ahead_s: float = 0.0,
        *,
        name: str = 'stream',
        count: int = 0,
        fps: float = FPS,
        video: Video | None = None,
    ) -> None:
        self.before, self.after, self.ahead_s = num_before, num_after, ahead_s
        self.name, self._nominal_fps, self._video = name, fps, video
        self.count = count  # frames since the source began
        self._first: tuple[int, float] | None = None  # number and time
        # One more: only the frame after a keyframe may decide that it is one.
        self._ring: deque[tuple[float, object]] = deque(
            maxlen=num_before + num_after + 2
        )

    @property
    def oldest(self) -> int:
        """The number of the first frame that is kept."""
        return self.count - len(self._ring)

    def append(self, time_s: float, picture: np.ndarray | int) -> None:
        self._first = self._first or (self.count, time_s)
        self._ring.append((time_s, picture))
        self.count += 1

    def _frame_at(self, time_s: float) -> int:
        """Number of the frame at a future time, if frames keep their rate."""
        if self._video is not None:
            return nearest_frame(self._video.place_of(time_s))
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
        video = self._video
        sample = dict(
            filename=self.name,
            video_id=self.name,
            timestamp=time_s,
            img_key=f'{self.name},{time_s:g}',
            frame_index=place,
            total_frames=len(frames),
            video_reader=_Reader(pictures, video.get_batch if video else Frames),
            start_index=0,
            modality='RGB',
        )
        size = video.size if video else pictures[0].shape[:2]
        if self.ahead_s:
            time_s += self.ahead_s
            keyframe = self._frame_at(time_s)
        return Clip(time_s, keyframe, frames, np.array(times), size, sample)


class _Reader(NamedTuple):
    """The frames of a clip, counted from its first, read like those of a video."""

    pictures: tuple
    decode: Callable[[list], Frames]

    def get_batch(self, indices: Iterable[int]) -> Frames:
        return self.decode([self.pictures[index] for index in map(int, indices)])


class EvenTimes:
    """Chooses the frames nearest to evenly spaced times, without repeats.

    Args:
        interval: Seconds from one to the next.
        start, end: The first time, and one that is after all of them.
        least: Earlier times are left out.

    Raises:
        UserError: there is no such time.
    """

    def __init__(
        self,
        interval: float = 1.0,
        start: float = 0.0,
        end: float | None = None,
        least: float = 0.0,
    ) -> None:
        self.interval, self._start = interval, start
        self._count = math.inf if end is None else self._times_before(end)
        self._next = max(0, math.ceil((least - start - SLACK_S) / interval))
        if self.is_over:
            raise UserError(
                f'The part from {start:g} s to {end:g} s has no keyframe: the first '
                f'keyframe is at {start + self._next * interval:g} s.'
            )
        self._last_frames: list[tuple[float, int]] = []  # the last two frames
        self._last = -1  # keyframe

    def _times_before(self, time_s: float) -> int:
        return math.ceil((time_s - self._start - SLACK_S) / self.interval)

    @property
    def is_over(self) -> bool:
        return self._next >= self._count

    def at_frame(self, index: int, time_s: float) -> list[tuple[float, int]]:
        """Time and number of each keyframe, at most two, that a frame makes known."""
        self._last_frames = [*self._last_frames[-1:], (time_s, index)]
        elapsed_s = time_s - self._start + SLACK_S
        return self._choose(math.floor(elapsed_s / self.interval) + 1)

    def at_end(self, duration_s: float) -> list[tuple[float, int]]:
        """Time and number of the keyframes while the last frame lasts."""
        return self._choose(self._times_before(duration_s))

    def _choose(self, stop: int) -> list[tuple[float, int]]:
        stop, chosen = min(stop, self._count), []
        # Of many times between two frames, the first is nearest to the first frame, and
        # the last to the second one.
        for number in sorted({self._next, stop - 1}) if self._next < stop else ():
            time_s = self._start + number * self.interval
            times, indices = zip(*self._last_frames, strict=True)
            frame = nearest_frame(np.interp(time_s, times, indices))
            if frame > self._last:
                chosen.append((time_s, frame))
                self._last = frame
        self._next = max(self._next, stop)
        return chosen


class ClipCutter:
    """Cuts a source into clips around its keyframes, each when its last frame is here.

    Iterating yields the clips. At the ends of the source clips lack frames, unless they
    are to lie inside.

    Args:
        source: Of :func:`.open_source`; of a file only the frames of clips are decoded.
        spans: First arguments of a :class:`RecentFrames`.
        interval_s: Seconds between keyframes; None: 1 s, or half a clip if ``inside``.
        start, end: Part of the source with the keyframes, in seconds since its first
            frame.
        inside: Move clips to lie within the source, and have one reach the part's end.

    Raises:
        UserError: the part has no keyframe; when iterating, also those of the source.
    """

    def __init__(
        self,
        source: Video | FrameStream,
        spans: tuple[int, int, float],
        *,
        interval_s: float | None = None,
        start: float = 0.0,
        end: float | None = None,
        inside: bool = False,
    ) -> None:
        is_file = isinstance(source, Video)
        self._source, self._inside = source, inside
        self._frames = source.numbered() if is_file else source
        self._ring = RecentFrames(
            *spans,
            name=name_source(source),
            fps=source.fps,
            video=source if is_file else None,
        )
        self._start, self._end = start, math.inf if end is None else end
        ahead_s = self._ring.ahead_s
        self._keyframes = EvenTimes(interval_s or 1.0, start, end, least=ahead_s)
        self._by_frames = inside and interval_s is None
        if self._by_frames:
            self._keyframes = EvenTimes(max(1, self._ring.before))
        self._waiting: deque[tuple[float, int]] = deque()
        self._first = self._stop = None  # frames of the part
        self._last = -1  # frame that a clip was cut at

    @property
    def interval(self) -> float:
        """Frames from a keyframe to the next."""
        rate = 1 if self._by_frames else self._source.fps
        return self._keyframes.interval * rate

    def shows(self, frame: int) -> bool:
        """True if a frame that was read belongs to the part."""
        return self._first <= frame and (self._stop is None or frame < self._stop)

    def __iter__(self) -> Iterator[Clip]:
        begin = elapsed_s = 0.0  # of the keyframe of a clip whose last frame is here
        for time_s, picture in self._frames:
            begin = begin if self._ring.count else time_s - self._ring.ahead_s
            elapsed_s = time_s - begin
            self._ring.append(time_s, picture)
            self._take(elapsed_s)
            yield from self._complete(begin)
            if self._is_over() and not self._waiting:
                return
        if self._ring.count:
            self._finish(elapsed_s)
            yield from self._complete(begin, is_end=True)
        if self._last < 0:
            raise UserError(
                f'{self._ring.name} has no frame from {self._start:g} s on: it ended '
                f'after {self._ring.count} frames.'
            )

    def _is_over(self) -> bool:
        """True when all keyframes are known."""
        if not (self._by_frames or self._keyframes.is_over):
            return False
        return not self._inside or self._stop is not None

    def _take(self, elapsed_s: float) -> None:
        """Find the keyframes that the last frame makes known."""
        index = self._ring.count - 1
        if self._first is None and has_reached(elapsed_s, self._start):
            self._first = index
        is_open = self._first is not None and self._stop is None
        if is_open and index > self._first and has_reached(elapsed_s, self._end):
            self._end_part(index)
        if not self._by_frames:
            self._waiting.extend(self._keyframes.at_frame(index, elapsed_s))
        elif self._first is not None and self._stop is None:
            self._waiting.extend(self._keyframes.at_frame(index, index - self._first))

    def _finish(self, elapsed_s: float) -> None:
        """Find the rest when the source has ended."""
        if not self._by_frames:
            duration_s = elapsed_s + 1 / self._source.fps
            self._waiting.extend(self._keyframes.at_end(duration_s))
        if self._stop is None:
            self._end_part(self._ring.count)

    def _end_part(self, stop: int) -> None:
        self._first = stop - 1 if self._first is None else self._first
        self._stop = stop
        if self._inside:
            self._waiting.append((0.0, stop - 1))

    def _complete(self, begin: float, is_end: bool = False) -> Iterator[Clip]:
        """The clips whose last frame is here."""
        ring = self._ring
        while self._waiting:
            time_s, frame = self._waiting[0]
            if self._inside:
                frame = max(frame, ring.before)
                if is_end:
                    frame = max(min(frame, ring.count - 1 - ring.after), 0)
            if not is_end and frame + ring.after >= ring.count:
                return
            self._waiting.popleft()
            if frame > self._last:
                self._last = frame
                yield ring.clip(frame, None if self._inside else begin + time_s)
