"""Detections drawn into a copy of a video."""

import heapq
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from fractions import Fraction
from itertools import chain, count
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.reformatter import Colorspace
from mmengine.logging import MMLogger
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from stmixer_mm.apis.tracking import DEFAULT_TRACKER, build_tracker
from stmixer_mm.datasets.containers import open_container
from stmixer_mm.datasets.streams import (
    FrameStream,
    open_source,
    read_part,
    source_files,
)
from stmixer_mm.datasets.videos import OnDamage, Video, open_video
from stmixer_mm.errors import UserError
from stmixer_mm.files import atomic_path, check_no_input
from stmixer_mm.pictures import decode
from stmixer_mm.structures import Keyframe
from stmixer_mm.visualization.draw import draw_detections, move_mask

VIDEOS = ('.mp4', '.mov', '.mkv')
ENCODING = {'preset': 'veryfast', 'crf': '18', 'bf': '0'}
_TICK = Fraction(1, 90_000)


def follow_persons(keyframes: Iterable[Keyframe]) -> Iterator[Keyframe]:
    """Keyframes, no frame twice, whose persons have ids."""
    tracker = previous_index = None
    for keyframe in keyframes:
        if keyframe.frame_index == previous_index:  # live, ahead of the stream
            continue
        previous_index = keyframe.frame_index
        if keyframe.ids is None:
            tracker = tracker or build_tracker(DEFAULT_TRACKER)
            ids = tracker.extend(keyframe.time_s, keyframe.bboxes, None, None)
            keyframe = keyframe.with_ids(ids.tolist())
        yield keyframe


class Annotator:
    """Draws detections on frames, in their order.

    Persons found at both neighbouring keyframes move in a straight line; others are
    shown at the frames nearest to their keyframe. Actions and masks are those of the
    nearest keyframe; masks move with the boxes.

    Args:
        keyframes: In order of time; taken as the frames need them.
    """

    def __init__(self, keyframes: Iterable[Keyframe]) -> None:
        self._keyframes = follow_persons(keyframes)
        self._previous = next(self._keyframes, None)
        self._next = next(self._keyframes, None)

    def draw(self, index: int, picture: np.ndarray) -> np.ndarray:
        """A frame (h, w, 3) RGB uint8 with its persons, or as it is before the first."""
        while self._next and index >= self._next.frame_index:
            self._previous, self._next = self._next, next(self._keyframes, None)
        near, far = self._previous, self._next or self._previous
        if near is None or index < near.frame_index:
            return picture
        gap = far.frame_index - near.frame_index
        share = (index - near.frame_index) / gap if gap else 0.0
        if share >= 0.5:
            near, far, share = far, near, 1 - share
        bboxes = near.bboxes
        far_bboxes = {person.id: person.bbox for person in far.persons}
        for bbox, person in zip(bboxes, near.persons, strict=True):
            bbox += share * (far_bboxes.get(person.id, bbox) - bbox)
        return draw_detections(
            picture,
            bboxes,
            near.actions,
            ids=near.ids,
            masks=near.masks
            and [
                move_mask(decode(mask), picture.shape[:2], bbox, to_bbox)
                for mask, bbox, to_bbox in zip(
                    near.masks, near.bboxes, bboxes, strict=True
                )
            ],
        )


def render_video(
    video: str | Path | Video | FrameStream,
    keyframes: Iterable[Keyframe],
    out: str | Path,
    *,
    start: float = 0.0,
    end: float | None = None,
    show_progress: bool = False,
    on_damage: OnDamage | None = None,
) -> None:
    """Write a video with the detections drawn on each of its frames.

    It is H.264, with the frames' own times and size (an odd width or height loses one
    pixel, which the codec does not support). The sound of a video file is kept as AAC.
    The file appears when it is whole.

    Args:
        video: Video file or stream that was detected on.
        keyframes: From :func:`detect_video`; taken as the frames need them.
        out: A file with one of the suffixes ``VIDEOS``.
        start, end: Part of the video in seconds; at least one frame is written.
        show_progress: Count the frames in the terminal.
        on_damage: Called with each stretch that the file lacks, and each frame that
            cannot be decoded, which is left out; without it that is an error.

    Raises:
        UserError: a frame of ``video`` cannot be decoded, or ``out`` cannot be written.
    """
    source = open_source(video, on_damage=on_damage)
    check_no_input([out], source_files(source), purpose='the drawn video')
    total = begin = sound = None
    tick = _TICK
    if isinstance(source, Video):
        part = source.part(start, end)
        total, tick, begin = len(part), source.time_base, source.times[part[0]]
        span = np.add((begin, source.end_of(part[-1])), source.start_s)
        sound = source.path, *span.tolist()
    with (
        tqdm(
            read_part(source, start, end, on_damage),
            total=total,
            unit='frame',
            desc=Path(out).name,
            disable=not show_progress,
        ) as frames,
        # Else log lines would land in the middle of the bar.
        logging_redirect_tqdm([MMLogger.get_current_instance()]),
    ):
        annotator = Annotator(keyframes)
        pictures = ((time_s, annotator.draw(n, frame)) for n, time_s, frame in frames)
        _write_whole(pictures, out, fps=source.fps, tick=tick, begin=begin, sound=sound)


def write_pictures(
    pictures: Iterable[tuple[float, np.ndarray]], out: str | Path
) -> None:
    """Write a video of pictures with their times, as :func:`render_video` does.

    Args:
        pictures: Seconds, which rise, and RGB uint8 (h, w, 3) of one size.
        out: A file with one of the suffixes ``VIDEOS``.

    Raises:
        UserError: ``out`` cannot be written, or there is no picture.
    """
    stream = FrameStream(pictures)
    _write_whole(iter(stream), out, fps=stream.fps)


def _write_whole(
    pictures: Iterator[tuple[float, np.ndarray]], out: str | Path, **form
) -> None:
    with atomic_path(out) as part:
        num_pictures = _write_video(pictures, part, **form)
        # A writer may not notice that the disk is full.
        if len(open_video(part)) != num_pictures:
            raise UserError(f'{out} lacks frames after writing; is the disk full?')


def _write_video(
    pictures: Iterator[tuple[float, np.ndarray]],
    out: Path,
    *,
    fps: float,
    tick: Fraction = _TICK,
    begin: float | None = None,
    sound: tuple[str, float, float] | None = None,
) -> int:
    """Write pictures and their sound; returns how many pictures there are.

    Args:
        pictures: Seconds and picture.
        out: The file.
        fps: Rate.
        tick: The unit of times in seconds.
        begin: When the video begins; by default with the first picture.
        sound: A file, from when to when.
    """
    first = next(pictures, None)
    if first is None:
        raise UserError(f'There is no frame to write to {out.name}.')
    begin = first[0] if begin is None else begin
    with ExitStack() as stack:
        target = stack.enter_context(av.open(f'file:{out}', 'w'))
        rate = Fraction(fps).limit_denominator(1001)
        stream = target.add_stream('h264', rate=rate, options=ENCODING)
        stream.height, stream.width = (side // 2 * 2 for side in first[1].shape[:2])
        stream.pix_fmt, stream.codec_context.time_base = 'yuv420p', tick
        stream.codec_context.colorspace = Colorspace.ITU601
        sound_packets: Iterable[av.Packet] = ()
        if sound is not None:
            path, start, stop = sound
            source, _ = open_container(f'file:{path}')
            stack.enter_context(source)
            sound_packets = _encoded_sound(source, target, start, stop)
        numbers = count()
        video_packets = _encoded(chain([first], pictures), stream, begin, numbers)

        def seconds(packet: av.Packet) -> Fraction:
            return packet.pts * packet.time_base

        for packet in heapq.merge(video_packets, sound_packets, key=seconds):
            target.mux(packet)
    return next(numbers)


def _encoded(
    pictures: Iterable[tuple[float, np.ndarray]],
    stream: av.VideoStream,
    begin: float,
    numbers: Iterator[int],
) -> Iterator[av.Packet]:
    """Packets of pictures, each of which takes a number."""
    tick, last = stream.codec_context.time_base, -1
    for time_s, picture in pictures:
        next(numbers)
        cropped = np.ascontiguousarray(picture[: stream.height, : stream.width])
        frame = av.VideoFrame.from_ndarray(cropped)
        last = max(last + 1, round((time_s - begin) / tick))
        frame.pts, frame.time_base = last, tick
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _encoded_sound(
    source: InputContainer, target: OutputContainer, start: float, stop: float
) -> Iterator[av.Packet]:
    """The sound from ``start`` to ``stop``, in seconds, without damaged parts."""
    audio = source.streams.best('audio')
    if audio is None:
        return
    # Not copied: no two containers take the same codecs.
    stream = target.add_stream('aac', rate=48_000, layout='stereo')
    with suppress(av.FFmpegError):
        source.seek(max(0, int((start - 1) * av.time_base)))
        for packet in source.demux(audio):
            with suppress(av.FFmpegError):
                for frame in packet.decode():
                    if frame.pts is not None and start <= frame.time < stop:
                        frame.pts -= round(start / frame.time_base)
                        yield from stream.encode(frame)
    yield from stream.encode(None)
