"""Detections drawn into a copy of a video."""

import heapq
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.reformatter import Colorspace
from mmengine.logging import MMLogger
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from stmixer_mm.apis.tracking import DEFAULT_TRACKER, build_tracker
from stmixer_mm.datasets.streams import FrameStream, open_source, read_part
from stmixer_mm.datasets.videos import OnDamage, Video, open_video
from stmixer_mm.errors import UserError
from stmixer_mm.files import atomic_path
from stmixer_mm.structures import Keyframe, decode
from stmixer_mm.visualization.draw import draw_detections, move_mask, person_colors

VIDEOS = ('.mp4', '.mov', '.mkv')
ENCODING = {'preset': 'veryfast', 'crf': '18', 'bf': '0'}


def follow_persons(
    keyframes: Iterable[Keyframe],
) -> Iterator[Keyframe]:
    """Keyframes, no frame twice, whose persons have ids."""
    tracker = before = None
    for found in keyframes:
        if found.frame_index == before:  # at short intervals
            continue
        before = found.frame_index
        if found.ids is None:
            tracker = tracker or build_tracker(DEFAULT_TRACKER)
            ids = tracker.extend(found.time_s, found.bboxes, None, None)
            found = found.with_ids(ids.tolist())
        yield found


def annotated_frames(
    frames: Iterable[tuple[int, np.ndarray]],
    keyframes: Iterable[Keyframe],
) -> Iterator[tuple[int, np.ndarray]]:
    """Draw detections on frames, in their order.

    Persons found at both neighbouring keyframes move in a straight line; others are
    shown at the frames nearest to their keyframe. Actions and masks are those of the
    nearest keyframe; masks move with the boxes.

    Args:
        frames: (index, RGB uint8 (h, w, 3)); those before the first keyframe stay.
        keyframes: In order of time; taken as the frames need them.
    """
    tracks = follow_persons(keyframes)
    before = next(tracks, None)
    after = next(tracks, None)
    for index, frame in frames:
        while after and index >= after.frame_index:
            before, after = after, next(tracks, None)
        if before is None or index < before.frame_index:
            yield index, frame
            continue
        near, far = before, after or before
        gap = far.frame_index - near.frame_index
        share = (index - near.frame_index) / gap if gap else 0.0
        if share >= 0.5:
            near, far, share = after, before, 1 - share
        bboxes, others = near.bboxes, {one.id: one.bbox for one in far.persons}
        for bbox, person in zip(bboxes, near.persons, strict=True):
            bbox += share * (others.get(person.id, bbox) - bbox)
        yield (
            index,
            draw_detections(
                frame,
                bboxes,
                near.actions,
                colors=person_colors(near.ids),
                masks=near.masks
                and [
                    move_mask(decode(mask), frame.shape[:2], *pair)
                    for mask, *pair in zip(near.masks, near.bboxes, bboxes, strict=True)
                ],
            ),
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
    if isinstance(source, Video) and os.path.realpath(out) == os.path.realpath(
        source.path
    ):
        raise UserError(f'{out} is the video itself; give another name.')
    part = _cut(source, start, end, on_damage)
    with (
        tqdm(
            part.frames,
            total=part.count,
            unit='frame',
            desc=Path(out).name,
            disable=not show_progress,
        ) as frames,
        # Else log lines would land in the middle of the bar.
        logging_redirect_tqdm([MMLogger.get_current_instance()]),
    ):
        _write_whole(part, annotated_frames(frames, keyframes), out)


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
    part = _cut(FrameStream(pictures), 0.0, None, None)
    _write_whole(part, part.frames, out)


class _Part(NamedTuple):
    """A part of a source that is to be drawn."""

    frames: Iterable[tuple[int, np.ndarray]]
    count: int | None  # of them, where it is known
    time_of: Callable[[int], float]  # seconds from the part's start, of frames read
    fps: float
    tick: Fraction  # the unit of its times in seconds
    sound: tuple[str, float, float] | None = None  # a file, from when to when


def _cut(
    source: Video | FrameStream,
    start: float,
    end: float | None,
    on_damage: OnDamage | None,
) -> _Part:
    times: dict[int, float] = {}

    def frames() -> Iterator[tuple[int, np.ndarray]]:
        for index, time_s, picture in read_part(source, start, end, on_damage):
            times[index] = time_s
            yield index, picture

    if isinstance(source, FrameStream):
        return _Part(
            frames(),
            None,
            lambda index: times.pop(index) - start - source.start_s,
            source.fps,
            Fraction(1, 90_000),
        )
    indices = source.part(start, end)
    begin = source.times[indices[0]]
    span = np.add((begin, source.end_of(indices[-1])), source.start_s).tolist()
    return _Part(
        frames(),
        len(indices),
        lambda index: times.pop(index) - begin,
        source.fps,
        source.time_base,
        (source.path, *span),
    )


def _write_whole(
    source: _Part, frames: Iterator[tuple[int, np.ndarray]], out: str | Path
) -> None:
    with atomic_path(out) as part:
        written = _write_video(source, frames, part)
        # A writer may not notice that the disk is full.
        if len(open_video(part)) != written:
            raise UserError(f'{out} lacks frames after writing; is the disk full?')


def _write_video(
    source: _Part, frames: Iterator[tuple[int, np.ndarray]], out: Path
) -> int:
    """Write frames and their sound; returns how many frames there are."""
    rate = Fraction(source.fps).limit_denominator(1001)
    first = next(frames, None)
    if first is None:
        raise UserError(f'There is no frame to write to {out.name}.')
    height, width = (side // 2 * 2 for side in first[1].shape[:2])
    written = 0

    def encoded() -> Iterator[av.Packet]:
        nonlocal written
        last = -1
        for number, drawn in chain([first], frames):
            even = np.ascontiguousarray(drawn[:height, :width])
            picture = av.VideoFrame.from_ndarray(even)
            last = max(last + 1, round(source.time_of(number) / source.tick))
            picture.pts, picture.time_base = last, source.tick
            written += 1
            yield from stream.encode(picture)
        yield from stream.encode(None)

    with ExitStack() as stack:
        target = stack.enter_context(av.open(f'file:{out}', 'w'))
        stream = target.add_stream('h264', rate=rate, options=ENCODING)
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
        stream.codec_context.time_base = source.tick
        stream.codec_context.colorspace = Colorspace.ITU601
        sound: Iterable[av.Packet] = ()
        if source.sound is not None:
            path, *span = source.sound
            heard = av.open(f'file:{path}', metadata_errors='ignore')
            sound = _encoded_sound(stack.enter_context(heard), target, *span)
        for packet in heapq.merge(
            encoded(), sound, key=lambda packet: packet.pts * packet.time_base
        ):
            target.mux(packet)
    return written


def _encoded_sound(
    source: InputContainer, target: OutputContainer, start: float, stop: float
) -> Iterator[av.Packet]:
    """The sound from ``start`` to ``stop``, in seconds, without damaged parts."""
    heard = source.streams.best('audio')
    if heard is None:
        return
    # Not copied: no two containers take the same codecs.
    stream = target.add_stream('aac', rate=48_000, layout='stereo')
    with suppress(av.FFmpegError):
        source.seek(max(0, int((start - 1) * av.time_base)))
        for packet in source.demux(heard):
            with suppress(av.FFmpegError):
                for frame in packet.decode():
                    if frame.pts is not None and start <= frame.time < stop:
                        frame.pts -= round(start / frame.time_base)
                        yield from stream.encode(frame)
    yield from stream.encode(None)
