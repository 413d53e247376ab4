"""Videos whose frames are found by their own time stamps."""

import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from itertools import chain, count, dropwhile, islice
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from stmixer_mm.datasets.containers import open_container, rgb_picture
from stmixer_mm.datasets.frames import place_of
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

    A frame is found by its own time stamp, however it is reached. Those before the
    first key frame, in videos cut without re-encoding, do not count: nothing can
    decode them. To be used by one at a time.

    Attributes:
        times: (n,) seconds at which each frame begins; frame 0 at 0.
        fps: Mean frame rate.
        start_s: Where frame 0 is on the clock of all streams of the file.
        time_base: Unit of the time stamps in seconds.
        key_inds: Frames from which decoding can start, rising.
        gaps: (first, last) seconds of stretches that the file lacks, although its
            frames are even.
        is_cut: Whether the last of them is the end.
        fears_gaps: Whether they count as damage: the pictures around one make no clip, and
            those after it may refer to lost ones.
        reads_on: Whether each batch begins near the end of the one before: then frames
            in between are decoded, too, and each frame once.

    Raises:
        av.FFmpegError, LookupError: It is not a video, or has no frame.
        ValueError: Its frames are too large, or far too narrow.
    """

    fears_gaps = reads_on = False

    def __init__(self, path: str) -> None:
        self.path = path
        # With ``reads_on``: from where the last batch began to where decoding is.
        self._kept: dict[int, np.ndarray | None] = {}
        self._following: Iterator[tuple[int, np.ndarray | None]] = iter(())
        self._to_rgb = VideoReformatter()
        self._open()
        context = self._stream.codec_context
        if context.width:  # some tell it only with their frames
            check_frame_size(context.height, context.width)
        self._shape = dict(width=context.width or None, height=context.height or None)
        self._read_index()

    def _open(self) -> None:
        # Some containers have no time stamps but those of decoding.
        self._container, self._stream = open_container(
            f'file:{self.path}', fflags='+genpts'
        )
        # Loaders are many processes, with a core for each.
        self._stream.codec_context.thread_count = 1

    def _read_index(self) -> None:
        """Go through all packets once, without decoding any."""
        rows, spans, is_partial = [], {}, False
        with suppress(av.FFmpegError):  # no more packets can be found
            for packet in self._container.demux():
                pts, duration = packet.pts, packet.duration or 0
                if pts is None:  # marks the end of a stream
                    continue
                first, last, _ = spans.get(packet.stream_index, (pts, pts, None))
                span = min(first, pts), max(last, pts + duration), packet.time_base
                spans[packet.stream_index], is_partial = span, packet.is_corrupt
                if packet.stream is self._stream and not packet.is_discard:
                    rows.append((pts, packet.dts, duration, packet.is_keyframe))
        self._entries = {pts: dts for pts, dts, _, is_key in rows if is_key}
        if not self._entries:
            raise LookupError('it has no key frame')
        first_key = min(self._entries)
        rows = [row for row in rows if row[0] >= first_key]
        stamps, where = np.unique([row[0] for row in rows], return_index=True)
        self._stamps = stamps.tolist()
        self.key_inds = np.searchsorted(stamps, sorted(self._entries)).tolist()

        self.time_base = self._stream.time_base
        unit = float(self.time_base)
        self.start_s = self._stamps[0] * unit
        self.times = (stamps - stamps[0]) * unit
        lengths = np.array([row[2] for row in rows])[where] * unit
        if len(stamps) > 1:
            self.fps = (len(stamps) - 1) / float(self.times[-1])
        else:
            self.fps = float(self._stream.average_rate or 1)
        self._find_gaps(lengths, spans, is_partial)

    def _find_gaps(
        self, lengths: np.ndarray, spans: dict[int, tuple], is_partial: bool
    ) -> None:
        """Find the stretches that the file lacks.

        Args:
            lengths: (n,) seconds that each frame lasts by its packet; 0: unknown.
            spans: (first, last) time stamp and unit of each stream.
            is_partial: Whether the last packet is incomplete.
        """
        pauses = np.diff(self.times) - lengths[:-1]
        is_even = (lengths > 0).all() and np.median(np.abs([*pauses, 0])) < 2e-3
        before = np.flatnonzero(pauses > MISSING_S) if is_even else []
        self._after_gaps = [self._stamps[i + 1] for i in before]
        ends = self.times + np.where(lengths > 0, lengths, 1 / self.fps)
        self.gaps = [(float(ends[i]), float(self.times[i + 1])) for i in before]
        begin = min(0, *(first * base for first, _, base in spans.values()))
        end = max(last * base for _, last, base in spans.values())
        lacks = (self._container.duration or 0) / av.time_base - float(end - begin)
        self.is_cut = is_partial or (is_even and lacks > MISSING_S)
        if self.is_cut:
            self.gaps.append((float(ends[-1]), float(ends[-1]) + max(lacks, 0)))

    def __del__(self) -> None:
        # A container is part of a cycle, and would keep its file open.
        if hasattr(self, '_container'):
            self._container.close()

    def __len__(self) -> int:
        return len(self._stamps)

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
        if self.reads_on:
            pictures = self._read_on(min(indices), max(indices))
        else:
            pictures = dict(self.pictures(sorted(set(indices))))
        damaged = [index for index in sorted(indices) if pictures[index] is None]
        if damaged:
            raise self.damage(damaged[0])
        first, last = self.times[[min(indices), max(indices)]]
        for start, end in self.gaps if self.fears_gaps else ():
            if first < start <= end <= last:
                raise self.lack(start, end)
        return Frames(pictures[index] for index in indices)

    def _read_on(self, first: int, last: int) -> dict[int, np.ndarray | None]:
        """Pictures by number, from the first to the last and maybe beyond."""
        place = max(self._kept, default=-1)
        if first < min(self._kept, default=0) or self._key_before(first) > place:
            self._kept, place = {}, first - 1
            self._following = self.pictures(range(first, len(self)))
        self._kept.update(islice(self._following, max(last - place, 0)))
        self._kept = {n: one for n, one in self._kept.items() if n >= first}
        return self._kept

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
        """The frames whose middle is between two times in seconds; at least one."""
        middles = self.times + 0.5 / self.fps
        first = min(int(np.searchsorted(middles, start)), len(self) - 1)
        stop = len(self) if end is None else int(np.searchsorted(middles, end))
        return range(first, max(first + 1, stop))

    def place_of(self, time_s: float) -> float:
        """A time, which may be after the last frame, counted in frames."""
        return place_of(time_s, self.fps, self.times)

    def end_of(self, index: int) -> float:
        """The second at which a frame ends."""
        after = index + 1
        return float(self.times[after] if after < len(self) else after / self.fps)

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
        run: list[int] = []
        for index in indices:
            # Decoding goes on from where it is, unless a later key frame is nearer.
            if run and self._key_before(index) > run[-1] + 1:
                yield from self._decode_run(run)
                run = []
            run.append(index)
        yield from self._decode_run(run)

    def _key_before(self, index: int) -> int:
        return self.key_inds[max(bisect_right(self.key_inds, index) - 1, 0)]

    def _decode_run(self, run: list[int]) -> Iterator[tuple[int, np.ndarray | None]]:
        rest = deque(run)
        while rest:
            key = self._key_before(rest[0])
            frames = self._decode(key, {self._stamps[index] for index in rest})
            first, _ = start = next(frames, (None, None))
            if first == self._stamps[key] or key == self.key_inds[0]:
                break
            self.key_inds.remove(key)  # decoding cannot start there
        for stamp, frame in chain([start], frames) if rest else ():
            while rest and stamp is not None and self._stamps[rest[0]] < stamp:
                yield rest.popleft(), None
            if rest and self._stamps[rest[0]] == stamp:
                yield rest.popleft(), None if frame is None else self._picture(frame)
            if not rest:
                return
        yield from ((index, None) for index in rest)

    def _decode(
        self, key: int, wanted: Collection[int]
    ) -> Iterator[tuple[int, av.VideoFrame | None]]:
        """Time stamp and frame, as shown from a key frame on.

        A frame is None if it is damaged, or may refer to one that is: up to the next
        key frame. Unwanted frames that no other one refers to are left out.
        """
        begin = after = self._stamps[key]
        is_sound, part, damaged = True, None, set()
        for packet in self._packets(key):
            if packet.pts is not None:
                now = self.fears_gaps and bisect_right(self._after_gaps, packet.pts)
                is_sound &= part in (now, None) and not packet.is_corrupt
                part = now
                if packet.is_keyframe:
                    is_sound, after = not packet.is_corrupt, packet.pts
                skip = 'DEFAULT' if packet.pts in wanted else 'NONREF'
                self._stream.codec_context.skip_frame = skip
            try:
                frames = [one for one in packet.decode() if one.pts is not None]
            except av.FFmpegError:
                frames, is_sound = [], False
            is_sound &= not any(one.is_corrupt for one in frames if one.pts >= after)
            if not is_sound:
                damaged.add(packet.pts)
            for frame in frames:
                if frame.pts >= begin:
                    is_whole = not frame.is_corrupt and frame.pts not in damaged
                    yield frame.pts, frame if is_whole else None

    def _packets(self, key: int) -> Iterator[av.Packet]:
        """Packets of the video from a key frame on, in the order of decoding."""
        stamp = self._stamps[key]
        dts = self._entries[stamp]  # what most containers seek by
        dts = stamp if dts is None else dts
        with suppress(av.FFmpegError):
            self._container.seek(dts, stream=self._stream)
        packets = self._container.demux(self._stream)
        first = next(packets, None)
        if first is None or first.dts is None or first.dts > dts:
            self._container.close()  # it went too far, or nowhere
            self._open()
            first, packets = None, self._container.demux(self._stream)
        packets = chain([first] if first else [], packets)
        with suppress(av.FFmpegError):
            yield from dropwhile(lambda packet: packet.pts != stamp, packets)

    def _picture(self, frame: av.VideoFrame) -> np.ndarray | None:
        with suppress(av.FFmpegError):  # damage may change the form of its pixels
            return rgb_picture(self._to_rgb, frame, **self._shape)
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
        video.fears_gaps = True
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
