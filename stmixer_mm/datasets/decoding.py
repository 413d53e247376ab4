"""The frames of a video file by their number, whatever the file.

Frame n is the n-th that decoding from the beginning gives. Decoding starts at a later key
frame only where :func:`may_seek` holds; every other file is decoded once to count its
frames, and always from its beginning.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, count, dropwhile, pairwise
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer

from stmixer_mm.datasets.containers import FPS, RisingClock, open_container

CACHE_BYTES = 2**25  # of decoded frames that may be asked for again
# Formats whose seeks are exact, and codecs with one frame in each packet.
_SOUGHT_FORMATS = ('mov,mp4,m4a,3gp,3g2,mj2', 'matroska,webm')
_SOUGHT_CODECS = (
    *('h264', 'hevc', 'av1', 'vp8', 'vp9', 'mpeg4', 'mjpeg'),
    *('prores', 'dnxhd', 'ffv1'),
)
# Formats whose header tells a duration; that of others is ffmpeg's estimate.
_TIMED_FORMATS = (*_SOUGHT_FORMATS, 'avi', 'asf', 'flv')
_ALTERING = ('palette', 'new_extradata', 'param_change')
_END = math.inf, None  # after the last frame


class Packet(NamedTuple):
    """An entry of a video's index; time stamps are in the unit of its stream."""

    pts: int | None
    dts: int | None
    duration: int
    is_key: bool
    is_hidden: bool  # by an edit list: decoded, but not shown
    is_odd: bool  # may show no frame, or changes how the decoder reads the next ones


def may_seek(
    container: InputContainer, stream: av.VideoStream, packets: list[Packet]
) -> bool:
    """True if packets tell the frames, and decoding may start at their key frames."""
    stamps = [packet.pts for packet in packets]
    shown_stamps = [packet.pts for packet in packets if not packet.is_hidden]
    context = stream.codec_context
    if (
        container.format.name not in _SOUGHT_FORMATS
        or context.codec.canonical_name not in _SOUGHT_CODECS
        or not shown_stamps
        or None in stamps
        or len({*stamps}) < len(stamps)
        or any(packet.is_odd for packet in packets)
    ):
        return False
    # Copies from AVI have the times of decoding, which do not tell the reordering.
    is_reordered = not context.has_b_frames or stamps != sorted(stamps)
    first, last = min(shown_stamps), max(shown_stamps)
    num_between = sum(first <= stamp <= last for stamp in stamps)
    is_headed = packets[0].is_key and stamps[0] <= first
    return is_reordered and is_headed and num_between == len(shown_stamps)


class Decoder:
    """The frames of a video file.

    Attributes:
        times: (n,) seconds at which each frame begins, rising; frame 0 at 0.
        lengths: (n,) seconds that each lasts by its packet; 0: unknown.
        lost: Numbers of frames before which packets gave none.
        start_s: Seconds of frame 0 on the clock of all streams of the file.
        missing_s: Seconds by which the file is shorter than its header says.
        is_partial: The last packet is incomplete.
        breaks: Numbers of frames; these and those after them, up to the next key frame,
            count as damaged.
        keeps: Frames between the requested ones are kept, too.

    Raises:
        av.FFmpegError, LookupError: It is not a video, or has no frame.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.lost: list[int] = []
        self.breaks: list[int] = []
        self.keeps = False
        # The cursor gives the frames from number _place on; _ahead came last from it.
        self._place, self._ahead = math.inf, _END
        self._cursor: Iterator[tuple[float, av.VideoFrame | None]] = iter(())
        self._recent: dict[int, av.VideoFrame | None] = {}  # in the order of decoding
        self._frame_bytes = 0
        self._numbers: dict[int, int] = {}  # by time stamp; empty: read in order
        self._starts: dict[int, Packet] = {}  # key frames, by number
        self._keys = [0]  # where decoding can start, rising
        self._joins: set[int] = set()  # packets in order whose damage does not count
        self._size: tuple[int, int] | None = None  # of the first frame that was sought
        self._open()

    def _open(self) -> None:
        self._container, self.stream = open_container(f'file:{self.path}')
        # Loaders are many processes, with a core for each.
        self.stream.codec_context.thread_count = 1
        self.stream.codec_context.copy_opaque = True  # a frame names its packet

    def close(self) -> None:
        # A container is part of a cycle, and would keep its file open.
        self._container.close()

    def read_index(self) -> None:
        """Number the frames."""
        packets, spans, self.is_partial = [], {}, False
        with suppress(av.FFmpegError):  # no more packets can be found
            for packet in self._container.demux():
                if not packet.size:  # marks the end of a stream
                    continue
                entry, self.is_partial = _entry(packet), packet.is_corrupt
                if packet.stream is self.stream:
                    packets.append(entry)
                stamp = entry.dts if entry.pts is None else entry.pts
                if stamp is not None:
                    first, last, _ = spans.get(packet.stream_index, (stamp, stamp, 0))
                    span = min(first, stamp), max(last, stamp + entry.duration)
                    spans[packet.stream_index] = *span, packet.time_base
        begin = min([0, *(first * unit for first, _, unit in spans.values())])
        end = max([0, *(last * unit for _, last, unit in spans.values())])
        self.missing_s = 0.0
        if self._container.format.name in _TIMED_FORMATS and self._container.duration:
            duration_s = self._container.duration / av.time_base
            self.missing_s = duration_s - float(end - begin)
        if may_seek(self._container, self.stream, packets):
            self._number(packets)
        else:
            self._decode_all([packet.is_key for packet in packets])

    def _number(self, packets: list[Packet]) -> None:
        shown = sorted(packet for packet in packets if not packet.is_hidden)
        self._numbers = {packet.pts: number for number, packet in enumerate(shown)}
        keys = {number: packet for number, packet in enumerate(shown) if packet.is_key}
        self._starts = {**keys, 0: packets[0]}  # which may be hidden
        self._keys = sorted(self._starts)
        stamps, unit = np.array([*self._numbers]), float(self.stream.time_base)
        self.start_s, self.times = float(stamps[0] * unit), (stamps - stamps[0]) * unit
        self.lengths = np.array([packet.duration for packet in shown]) * unit

    def _decode_all(self, is_key: list[bool]) -> None:
        # Where transport streams are joined, whole packets count as incomplete.
        keys = np.flatnonzero(is_key).tolist()
        self._joins = {*(key - 1 for key in keys), *(key - 2 for key in keys)}
        rows, unit = [], float(self.stream.time_base)
        for frame, is_sound in self._decode(0):
            if _is_corrupt(frame):
                self.lost += [len(rows)] if rows else []
                continue
            self._remember(len(rows), frame if is_sound else None, math.inf)
            rows.append((frame.pts, frame.dts, frame.duration or 0))
        if not rows:
            raise LookupError('it has no frame that can be decoded')
        pts, dts, lengths = zip(*rows, strict=True)
        # AVI has only decoding time stamps.
        stamps = min(pts, dts, key=_steps_back)
        seconds = [stamp if stamp is None else stamp * unit for stamp in stamps]
        clock = RisingClock(1 / float(self.stream.average_rate or FPS))
        self.start_s = seconds[0] or 0.0
        self.times = np.array([clock.read(stamp) for stamp in seconds])
        self.lengths = np.array(lengths) * unit
        self.lost = [number for number in self.lost if number < len(rows)]

    def frame(self, index: int, oldest: int) -> av.VideoFrame | None:
        """A frame, None if damaged; those from ``oldest`` on may be requested again."""
        if index in self._recent:
            return self._recent[index]
        # Decoding goes on from where it is, unless a later key frame is nearer.
        if index < self._place or self._key_before(index) > self._place:
            self._restart(index)
        self._place = index
        while self._ahead[0] < index:
            self._remember(*self._ahead, oldest)
            self._ahead = next(self._cursor, _END)
        frame = self._ahead[1] if self._ahead[0] == index else None
        self._remember(index, frame, oldest)
        if frame is not None and self._numbers:
            size = frame.width, frame.height
            self._size = self._size or size
            if self._size != size:  # a seek back would not restore the decoder's head
                self._starts, self._keys = {}, [0]
        return frame

    def forget(self) -> None:
        """Begin anew with the next frame."""
        self._recent, self._place, self._cursor = {}, math.inf, iter(())

    @property
    def _keeps_all(self) -> bool:
        return self.keeps or not self._numbers

    def _remember(
        self, number: int, frame: av.VideoFrame | None, oldest: float
    ) -> None:
        """Keep a frame; drop those before ``oldest`` that take too much memory."""
        if not self._keeps_all:
            return
        self._recent[number] = frame
        if frame is not None:
            self._frame_bytes = sum(plane.buffer_size for plane in frame.planes)
        while len(self._recent) * self._frame_bytes > CACHE_BYTES:
            first = next(iter(self._recent))
            if first >= min(oldest, number):
                return
            del self._recent[first]

    def _key_before(self, index: int) -> int:
        return self._keys[bisect_right(self._keys, index) - 1]

    def _restart(self, index: int) -> None:
        """Begin to decode at the last key frame before a frame that proves to be one."""
        self._recent, self._place = {}, index
        while key := self._key_before(index):
            self._cursor = self._numbered(key)
            self._ahead = number, frame = next(self._cursor, _END)
            if number == key and frame is not None and frame.key_frame:
                return
            self._keys.remove(key)
        self._cursor = self._numbered(0)
        self._ahead = next(self._cursor, _END)

    def _numbered(self, key: int) -> Iterator[tuple[int, av.VideoFrame | None]]:
        """Number and frame from a key frame on; None: it is not sound."""
        last_key, following = key, count()
        for frame, is_sound in self._decode(key):
            if frame is None or (frame.is_corrupt and not self._numbers):
                continue
            number = self._numbers.get(frame.pts) if self._numbers else next(following)
            if number is None or number < key:
                continue
            last_key = number if frame.key_frame else last_key
            is_sound &= not any(last_key < gap <= number for gap in self.breaks)
            yield number, frame if is_sound else None

    def _decode(self, key: int) -> Iterator[tuple[av.VideoFrame | None, bool]]:
        """Frames as shown, each with whether it is sound; None for a lost packet.

        A frame is not sound if it is damaged, or may refer to one that is: up to the next
        key frame. Frames before the wanted one that no other refers to are left out.
        """
        is_sound, key_stamp, unsound = True, None, set()
        for order, packet in enumerate(self._packets(key)):
            packet.opaque = order
            if packet.is_keyframe:
                is_sound, key_stamp = True, packet.pts
            is_sound &= not packet.is_corrupt or order in self._joins
            is_before = self._numbers.get(packet.pts, self._place) < self._place
            # AV1's decoder keeps the setting of the first packet.
            is_spare = order and is_before and not self._keeps_all
            self.stream.codec_context.skip_frame = 'NONREF' if is_spare else 'DEFAULT'
            try:
                frames, fails = packet.decode(), False
            except av.FFmpegError:
                frames, fails = [None], True
            # What is shown before the key frame may refer to frames before it.
            leads = None not in (packet.pts, key_stamp) and packet.pts < key_stamp
            is_sound &= leads or not (fails or any(map(_is_corrupt, frames)))
            if not is_sound:
                unsound.add(order)
            for frame in frames:
                is_whole = frame is not None and not frame.is_corrupt
                if frame is not None and frame.is_corrupt:  # known when it is shown
                    unsound.update(range(frame.opaque or 0, order))
                yield frame, is_whole and frame.opaque not in unsound

    def _packets(self, key: int) -> Iterator[av.Packet]:
        """Packets of the video from a key frame on, in the order of decoding."""
        start = self._starts.get(key)
        packets = self._seek(start) if start else None
        if packets is None:
            self.close()
            self._open()
            packets = self._container.demux(self.stream)
        with suppress(av.FFmpegError):
            if start:
                packets = dropwhile(lambda packet: packet.pts != start.pts, packets)
            yield from packets

    def _seek(self, start: Packet) -> Iterator[av.Packet] | None:
        """Packets from the start or earlier; None if it cannot be reached."""
        has_pts = self._container.format.name == 'matroska,webm'  # in its index
        stamp = start.pts if has_pts or start.dts is None else start.dts
        with suppress(av.FFmpegError):
            self._container.seek(stamp, stream=self.stream)
            packets = self._container.demux(self.stream)
            first = next(packets, None)
            if first is not None and (
                first.pts == start.pts or (first.dts is not None and first.dts <= stamp)
            ):
                return chain([first], packets)
        return None


def _entry(packet: av.Packet) -> Packet:
    context = packet.stream.codec_context
    codec = context.name if context else ''  # of a stream of data there is none
    is_odd = any(map(packet.has_sidedata, _ALTERING))
    # VP8 has frames that are not shown, MPEG-4 packets without one.
    is_odd |= codec == 'vp8' and not memoryview(packet)[0] & 0x10
    is_odd |= codec == 'mpeg4' and packet.size < 10
    times = packet.pts, packet.dts, packet.duration or 0
    return Packet(*times, packet.is_keyframe, packet.is_discard, is_odd)


def _steps_back(stamps: Sequence[int | None]) -> int:
    """Number of times that the clock of frames goes back."""
    valid_stamps = [stamp for stamp in stamps if stamp is not None]
    return sum(second < first for first, second in pairwise(valid_stamps))


def _is_corrupt(frame: av.VideoFrame | None) -> bool:
    return frame is None or frame.is_corrupt
