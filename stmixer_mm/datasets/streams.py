"""Frames that come one after the other, and clips cut from them as they come.

All sources but video files are read once, from beginning to end, if they have one:
arrays, folders of pictures, cameras, the network, standard input. Only the frames that
a clip can still need are kept.
"""

import io
import math
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from glob import glob, has_magic
from itertools import tee
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from stmixer_mm.datasets.frames import VIDEO_SUFFIXES, nearest_frame
from stmixer_mm.datasets.videos import (
    Frames,
    OnDamage,
    Video,
    open_video,
    rgb_picture,
)
from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import check_file

PICTURE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
FPS = 30.0  # of frames that come without times, as in KeyframeDataset
OPEN_S, READ_S = 10.0, 10.0  # until a source counts as gone
_CAMERA = '/dev/video'


class FrameStream:
    """Frames with their times, each read once.

    Iterating yields (seconds, RGB uint8 (h, w, 3)): frames of one size, times rising.

    Args:
        items: Frames, or pairs of seconds and frame; or what makes them, given this
            stream.
        name: Of the source, for messages.
        fps: Rate of frames that come without times.

    Attributes:
        size: (h, w) of the frames, None before the first.
        duration_s: Seconds from the first frame on, if it says so; None for cameras
            and the like.
        count: Frames so far.
        start_s, last_s: Times of the first frame and of the last so far.

    Raises:
        UserError: when iterating: what comes is not such a frame.
    """

    def __init__(
        self,
        items: Iterable | Callable[['FrameStream'], Iterable],
        *,
        name: str = 'frames',
        fps: float | None = None,
    ) -> None:
        self.name = name
        self.duration_s: float | None = None
        self.size: tuple[int, int] | None = None
        self.count = 0
        self.start_s = self.last_s = 0.0
        self._nominal_fps = FPS if fps is None else fps
        if not 0 < self._nominal_fps < math.inf:
            raise UserError(f'fps={fps} of {name} must be positive.')
        self._frames = self._check(items(self) if callable(items) else items)

    @property
    def fps(self) -> float:
        """The mean rate so far."""
        if self.count < 2:
            return self._nominal_fps
        return (self.count - 1) / (self.last_s - self.start_s)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        return self._frames

    def close(self) -> None:
        """Let go of the source."""
        self._frames.close()

    def branch(self) -> 'FrameStream':
        """A second reader of the same frames; what only one has read is kept."""
        self._frames, other = tee(self._frames)
        return FrameStream(other, name=self.name, fps=self._nominal_fps)

    def _check(self, items: Iterable) -> Iterator[tuple[float, np.ndarray]]:
        for item in items:
            is_timed = isinstance(item, tuple) and len(item) == 2
            time_s, frame = item if is_timed else (self.count / self._nominal_fps, item)
            place = f'{self.name}: frame {self.count}, counted from 0,'
            if not is_picture(frame):
                raise UserError(
                    f'{place} is {_describe(frame)}; give RGB arrays (h, w, 3) of uint8.'
                )
            if self.count and frame.shape[:2] != self.size:
                raise UserError(
                    f'{place} has {frame.shape[1]}x{frame.shape[0]} pixels after '
                    f'{self.size[1]}x{self.size[0]}; give frames of one size.'
                )
            with blame(f'{place} has the time {time_s!r}', 'give rising seconds'):
                if not (self.last_s if self.count else -math.inf) < time_s < math.inf:
                    raise ValueError(f'after {self.last_s} s')
            self.size, self.last_s = frame.shape[:2], float(time_s)
            if not self.count:
                self.start_s = self.last_s
            self.count += 1
            yield self.last_s, frame


def is_picture(frame: object) -> bool:
    return (
        isinstance(frame, np.ndarray)
        and frame.dtype == np.uint8
        and frame.ndim == 3
        and frame.shape[2] == 3
        and frame.size > 0
    )


def _describe(frame: object) -> str:
    if isinstance(frame, np.ndarray):
        return f'an array {frame.shape} of {frame.dtype}'
    return f'of type {type(frame).__name__}'


def list_sources(inputs: object) -> list:
    """The single sources that a user names.

    Args:
        inputs: A video file, a folder of videos or of pictures, a list of files (.txt),
            a pattern (``videos/*.mp4``), a URL, a camera's number, ``-`` for standard
            input, frames as an array (T, h, w, 3) or an iterator; or a list of these.

    Raises:
        UserError: there is nothing of the kind.
    """
    if isinstance(inputs, list | tuple) and not any(map(is_picture, inputs[:1])):
        return [source for one in inputs for source in list_sources(one)]
    if not isinstance(inputs, str | Path) or is_live(inputs):
        return [inputs]
    path = str(inputs)
    if os.path.isdir(path):
        names = sorted(os.listdir(path))
        videos = [name for name in names if name.lower().endswith(VIDEO_SUFFIXES)]
        if not videos and not _pictures(path):
            raise UserError(
                f'{path}: the folder holds neither videos ({" ".join(VIDEO_SUFFIXES)}) '
                f'nor pictures ({" ".join(PICTURE_SUFFIXES)}); give another one.'
            )
        return [os.path.join(path, name) for name in videos] or [path]
    if path.lower().endswith('.txt'):
        check_file(path)
        with blame(f'{path}: the list', 'give a text file with a source in each line'):
            lines = Path(path).read_text('utf-8-sig').splitlines()
        sources = [line.strip() for line in lines if line.strip()]
        if not sources:
            raise UserError(f'{path}: the list is empty; write a source in each line.')
        return [_beside(path, source) for source in sources]
    if has_magic(path) and not os.path.exists(path):
        found = sorted(glob(path, recursive=True))
        if not found:
            raise UserError(f'{path}: no file has such a name; correct the pattern.')
        return found
    return [path]


def single_source(named: object) -> object:
    """The only source that :func:`list_sources` returns.

    Raises:
        UserError: there are more, or none.
    """
    sources = list_sources(named)
    if len(sources) != 1:
        raise UserError(f'{named} names {len(sources)} sources; give one at a time.')
    return sources[0]


def _beside(path: str, source: str) -> str:
    """A source of a list, which may be relative to it."""
    beside = os.path.join(os.path.dirname(path), source)
    is_there = os.path.exists(source) or is_live(source)
    return beside if not is_there and os.path.exists(beside) else source


def is_live(source: str | Path) -> bool:
    """Whether a name is that of a stream, not of a file or a folder."""
    text = str(source)
    if text == '-' or '://' in text or text.startswith(_CAMERA):
        return True
    return text.isdecimal() and not os.path.exists(text)


def open_source(
    source: object,
    *,
    fps: float | None = None,
    frame_size: tuple[int, int] | None = None,
    on_damage: OnDamage | None = None,
) -> Video | FrameStream:
    """Open one of the sources of :func:`list_sources`.

    A video file is opened for random access, everything else to be read once.

    Args:
        source: Such a source, or one that is open.
        fps: Rate of frames that come without times: arrays, pictures, raw frames.
        frame_size: (width, height) of raw RGB frames on standard input. Without it the
            input's form must say so (``-f yuv4mpegpipe``, ``-f mpegts``).
        on_damage: For video files, see :func:`.open_video`.

    Raises:
        UserError: it cannot be opened; when iterating, also: it broke off.
    """
    if isinstance(source, Video | FrameStream):
        return source
    source = single_source(source)
    name = name_source(source)
    if isinstance(source, bool) or not isinstance(source, str | Path | int | Iterable):
        raise UserError(
            f'The source is {_describe(source)}; give a path, a URL, the number of a '
            'camera or frames.'
        )
    if not isinstance(source, str | Path | int):
        return FrameStream(source, name=name, fps=fps)
    text = str(source)
    if is_live(text):
        decode = partial(_decode, source=text, fps=fps, frame_size=frame_size)
        return FrameStream(decode, name=name, fps=fps)
    if os.path.isdir(text):
        return FrameStream(_read_pictures(text), name=name, fps=fps)
    return open_video(text, on_damage)


def name_source(source: object) -> str:
    """What a source is called: its path, its URL, or what it is."""
    if isinstance(source, Video | FrameStream):
        return source.path if isinstance(source, Video) else source.name
    if not isinstance(source, str | Path | int):
        return 'frames'
    text = re.sub('//[^/@]*@', '//', str(source))  # without a password
    if text == '-':
        return 'standard input'
    return f'camera {text}' if text.isdecimal() and is_live(text) else text


def _pictures(folder: str) -> list[str]:
    """Names of the pictures in a folder, by the numbers in them."""
    names = [n for n in os.listdir(folder) if n.lower().endswith(PICTURE_SUFFIXES)]
    return sorted(
        names, key=lambda name: [(len(n), n) for n in re.findall(r'\d+|\D+', name)]
    )


def _read_pictures(folder: str) -> Iterator[np.ndarray]:
    for name in _pictures(folder):
        path = os.path.join(folder, name)
        check_file(path)
        picture = cv2.imread(path, cv2.IMREAD_COLOR)
        if picture is None:
            raise UserError(f'{path} cannot be read as a picture; extract it again.')
        yield np.ascontiguousarray(picture[..., ::-1])


def _decode(
    opened: FrameStream,
    source: str,
    fps: float | None,
    frame_size: tuple[int, int] | None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Frames of what ffmpeg can open, with seconds since the first."""
    name, target, form, options = opened.name, source, None, {}
    again, remedy = 'open it again', 'see whether it is there and sends video'
    if source == '-':
        # An mp4 file may have at its end what is needed first.
        again = remedy = 'pipe a form that begins with its head (mkv, mpegts, …)'
    with blame(f'{name} cannot be opened', remedy), _in_words(OPEN_S):
        if source == '-':
            # Unbuffered, so that a frame is here as soon as it was written.
            target = io.FileIO(sys.stdin.fileno(), closefd=False)
            if frame_size is not None:
                form = 'rawvideo'
                options = dict(pixel_format='rgb24', framerate=str(fps or FPS))
                options['video_size'] = '{}x{}'.format(*frame_size)
        elif source.isdecimal() or source.startswith(_CAMERA):
            target, form = _CAMERA + source.removeprefix(_CAMERA), 'v4l2'
        elif source.startswith('rtsp'):
            options = dict(rtsp_transport='tcp')
        container = av.open(
            target,
            format=form,
            options=options,
            timeout=None if source == '-' else (OPEN_S, READ_S),
            metadata_errors='ignore',
        )
        stream = container.streams.best('video')
        if stream is None:
            raise LookupError('it has no video stream')
    if container.duration is not None:
        opened.duration_s = container.duration / av.time_base
    to_rgb, start, time_s = VideoReformatter(), None, 0.0
    step = 1 / float(stream.average_rate or fps or FPS)
    with (
        closing(container),
        blame(f'{name} broke off', again),
        _in_words(READ_S),
    ):
        for packet in container.demux(stream):
            with suppress(av.InvalidDataError):  # what was lost on the way
                for frame in packet.decode():
                    if frame.is_corrupt:
                        continue
                    last, time_s = time_s, time_s + step
                    if start is None:
                        start, time_s = frame.time or 0.0, 0.0
                    elif frame.time is not None and frame.time - start > last:
                        time_s = frame.time - start
                    elif frame.time is not None:  # its clock began anew
                        start = frame.time - time_s
                    yield time_s, rgb_picture(to_rgb, frame)


@contextmanager
def _in_words(seconds: float) -> Iterator[None]:
    """Raise what ffmpeg says without the source's name, which may hold a password."""
    try:
        yield
    except av.ExitError as error:
        raise TimeoutError(f'nothing came for {seconds:g} s') from error
    except av.FFmpegError as error:
        raise OSError(error.strerror) from error


class Clip(NamedTuple):
    """Frames from which a pipeline makes a model's input.

    They are around a keyframe, or end before one that is yet to come.
    """

    time_s: float  # of the keyframe, as it was asked for
    frame_index: int  # of the keyframe, counted from 0 since the source began
    frames: range  # the numbers of the frames from the clip's first to its last
    times: np.ndarray  # of these, seconds
    size: tuple[int, int]  # (h, w) of the frames
    sample: dict  # what the pipeline takes


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
