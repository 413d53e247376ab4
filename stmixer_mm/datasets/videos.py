"""Videos whose frames are found by their own time stamps."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from itertools import count
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from stmixer_mm.datasets.containers import pixel_aspect, rgb_picture
from stmixer_mm.datasets.decoding import Decoder
from stmixer_mm.datasets.frames import has_reached, place_of
from stmixer_mm.errors import UserError
from stmixer_mm.files import check_file
from stmixer_mm.pictures import MAX_PIXELS, check_frame_size

MAX_OPEN = 16  # videos of a process; each takes some MB
# Seconds that may lack frames, against the duration in the header of the file.
MISSING_S = 0.5


class DamagedVideo(UserError):
    """A part of a video that cannot be read; ``stretch`` is (first, last) in seconds."""

    def __init__(self, message: str, stretch: tuple[float, float] = (0, 0)) -> None:
        super().__init__(message)
        self.stretch = stretch


def join_stretches(
    stretches: Iterable[tuple[float, float]],
) -> list[tuple[float, float]]:
    """Stretches in order of time, those that touch as one."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted(stretches):
        if joined and start <= joined[-1][1] + 1e-3:
            start, end = joined[-1][0], max(end, joined.pop()[1])
        joined.append((start, end))
    return joined


OnDamage = Callable[[DamagedVideo], object]


class Frames(list):
    """RGB pictures (h, w, 3) uint8, which the hosts' transforms can take for decord's."""

    def asnumpy(self) -> 'Frames':
        return self


class Video:
    """The frames of a video file, counted from 0 in the order in which they are shown.

    Frame n is the n-th that decoding in order gives, however it is reached. A file in
    which seeking is not safe is decoded once when it is opened. To be used by one at a time.

    Attributes:
        times: (n,) seconds at which each frame begins, rising; frame 0 at 0.
        fps: Mean frame rate.
        pixel_aspect: Width of the file's pixels by their height; pictures have square
            ones.
        start_s: Seconds of frame 0 on the clock of all streams of the file.
        time_base: Unit of the time stamps in seconds.
        gaps: (first, last) seconds of stretches that the file lacks, although its
            frames are even, or whose packets give no frame.
        is_cut: The last of them is the end.
        fears_gaps: They count as damage: the pictures around one make no clip, and
            later ones may refer to lost ones.
        reads_on: Each batch begins near the end of the one before: then frames in
            between are decoded, too, and each frame once.

    Raises:
        av.FFmpegError, LookupError: It is not a video, or has no frame.
        ValueError: Its frames are too large, or far too narrow.
    """

    fears_gaps = reads_on = False

    def __init__(self, path: str) -> None:
        self.path = path
        self._to_rgb = VideoReformatter()
        self._decoder = decoder = Decoder(path)
        context = decoder.stream.codec_context
        self.pixel_aspect = pixel_aspect(decoder.stream)
        if context.width:  # some tell it only with their frames
            check_frame_size(context.height, round(context.width * self.pixel_aspect))
        self._shape = dict(width=context.width or None, height=context.height or None)
        decoder.read_index()
        self.times, self.start_s = decoder.times, decoder.start_s
        self.time_base = decoder.stream.time_base
        if len(self) > 1:
            self.fps = (len(self) - 1) / float(self.times[-1])
        else:
            self.fps = float(decoder.stream.average_rate or 1)
        self._find_gaps()

    def _find_gaps(self) -> None:
        lengths = self._decoder.lengths
        pauses = np.diff(self.times) - lengths[:-1]
        is_even = (lengths > 0).all() and np.median(np.abs([*pauses, 0])) < 2e-3
        missing = np.flatnonzero(pauses > MISSING_S) + 1 if is_even else []
        self._after_gaps = sorted({*map(int, missing), *self._decoder.lost})
        ends = (self.times + np.where(lengths > 0, lengths, 1 / self.fps)).tolist()
        begins = self.times.tolist()
        self.gaps = [(min(ends[i - 1], begins[i]), begins[i]) for i in self._after_gaps]
        lacks = self._decoder.missing_s
        self.is_cut = self._decoder.is_partial or bool(is_even and lacks > MISSING_S)
        if self.is_cut:
            self.gaps.append((ends[-1], ends[-1] + max(lacks, 0)))

    def fear_gaps(self) -> None:
        """Take gaps for damage from now on."""
        self.fears_gaps, self._decoder.breaks = True, self._after_gaps
        if self._after_gaps:
            self._decoder.forget()

    def __del__(self) -> None:
        if hasattr(self, '_decoder'):
            self._decoder.forget()
            self._decoder.close()

    def __len__(self) -> int:
        return len(self.times)

    @property
    def clock(self) -> dict:
        """The keys of a sample about the times of its video's frames."""
        return dict(total_frames=len(self), fps=self.fps, frame_times=self.times)

    def get_batch(self, indices: Sequence[int]) -> Frames:
        """The pictures of some frames, in any order.

        Raises:
            DamagedVideo: One of them cannot be decoded.
        """
        indices = list(map(int, indices))
        first, last = min(indices), max(indices)
        index_set, pictures = {*indices}, {}
        self._decoder.keeps = self.reads_on
        for index in range(first, last + 1) if self.reads_on else sorted(index_set):
            frame = self._decoder.frame(index, first)
            if index in index_set:
                pictures[index] = self._picture(frame)
                if pictures[index] is None:
                    raise self.damage(index)
        first_s, last_s = self.times[[first, last]]
        for start, end in self.gaps if self.fears_gaps else ():
            if first_s < start <= end <= last_s:
                raise self.lack(start, end)
        return Frames(pictures[index] for index in indices)

    def lack(self, start: float, end: float) -> DamagedVideo:
        """The error of a stretch that is missing."""
        return DamagedVideo(
            f'{self.path} ({os.path.getsize(self.path)} bytes) cannot be read from '
            f'{start:.3f} s to {end:.3f} s; fetch it again.',
            (start, end),
        )

    def damage(self, index: int) -> DamagedVideo:
        """The error of a frame that cannot be decoded."""
        start = float(self.times[index])
        # ffmpeg hides the size of frames that it does not decode for it.
        size = '' if self._shape['width'] else f', or of more than {MAX_PIXELS} pixels'
        return DamagedVideo(
            f'{self.path}: frame {index}, counted from 0, at {start:.3f} s, cannot be '
            f'decoded; the video is damaged there{size}: fetch it again or re-encode it.',
            (start, self.end_of(index)),
        )

    def numbered(self) -> Iterator[tuple[float, int]]:
        """Seconds and number of each frame."""
        return zip(self.times.tolist(), count())

    def part(self, start: float, end: float | None) -> range:
        """The frames that begin between two times in seconds; at least one."""
        first, stop = (
            len(self) - int(has_reached(self.times, limit).sum())
            for limit in (start, np.inf if end is None else end)
        )
        first = min(first, len(self) - 1)
        return range(first, max(first + 1, stop))

    def place_of(self, time_s: float) -> float:
        """A time, which may be after the last frame, counted in frames."""
        return place_of(time_s, self.fps, self.times)

    def end_of(self, index: int) -> float:
        """The second at which a frame ends."""
        index += 1
        return float(self.times[index] if index < len(self) else index / self.fps)

    @cached_property
    def size(self) -> tuple[int, int]:
        """(h, w) of the pictures.

        Raises:
            DamagedVideo: None of them can be decoded.
        """
        for _, picture in self.pictures(range(len(self))):
            if picture is not None:
                return picture.shape[:2]
        raise self.damage(0)

    def pictures(
        self, indices: Iterable[int]
    ) -> Iterator[tuple[int, np.ndarray | None]]:
        """Frames of rising indices, each decoded when it is asked for.

        Yields:
            Index, and RGB uint8 (h, w, 3) or, where the video is damaged, None.
        """
        for index in indices:
            yield index, self._picture(self._decoder.frame(index, index))

    def _picture(self, frame: av.VideoFrame | None) -> np.ndarray | None:
        with suppress(av.FFmpegError):  # damage may change the form of its pixels
            return frame and rgb_picture(
                self._to_rgb, frame, **self._shape, aspect=self.pixel_aspect
            )
        return None


def open_video(path: str | Path, on_damage: OnDamage | None = None) -> Video:
    """Open a video without reading it into memory.

    Args:
        path: Video file.
        on_damage: Is told of each stretch that the file lacks; without it a file that
            is cut short is refused.

    Raises:
        UserError: the file is missing, empty, truncated or not a video.
    """
    check_file(path, subject=path, remedy='check the path (of a dataset: data_prefix)')
    try:
        video = Video(str(path))
    except (av.FFmpegError, LookupError) as error:
        raise UserError(
            f'{path} ({os.path.getsize(path)} bytes) cannot be read as a video: it is '
            'truncated, damaged, of an unknown codec, a list of others or not a video; '
            'fetch it again or re-encode it, for example as H.264.'
        ) from error
    except ValueError as error:
        raise UserError(f'{path}: {error}; scale or crop it.') from error
    if on_damage is None and video.is_cut:
        raise video.lack(*video.gaps[-1])
    if on_damage is not None:
        video.fear_gaps()
        for gap in video.gaps:
            on_damage(video.lack(*gap))
    return video


def shared_video(path: str) -> Video:
    """A video that stays open from clip to clip: opening one reads its whole index.

    The :data:`MAX_OPEN` used last stay, for one user at a time.
    """
    stat = os.stat(path) if os.path.isfile(path) else None
    version = stat and (stat.st_mtime_ns, stat.st_size)
    # Two processes would share the place in a file.
    return _shared(path, version, os.getpid())


@lru_cache(MAX_OPEN)
def _shared(path: str, version: object, process: int) -> Video:
    return open_video(path)


# A worker that is forked could not close them: their threads stay with this process.
os.register_at_fork(before=_shared.cache_clear)
