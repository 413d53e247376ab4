"""Detections drawn into a copy of a video."""

import heapq
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.reformatter import Colorspace
from mmengine.logging import MMLogger
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from stmixer_mm.apis.results import KeyframeDetections
from stmixer_mm.datasets.videos import OnDamage, Video, open_video
from stmixer_mm.errors import UserError
from stmixer_mm.files import atomic_path
from stmixer_mm.visualization.draw import draw_detections, person_colors

VIDEOS = ('.mp4', '.mov', '.mkv', '.avi')
# Without B-frames, whose order AVI cannot hold.
ENCODING = {'preset': 'veryfast', 'crf': '18', 'bf': '0'}


def match_persons(before: np.ndarray, after: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (i, j) of boxes of two keyframes that can be the same person.

    Args:
        before, after: (n, 4) and (m, 4) pixel xyxy.

    A person moves by less than the box's own size (the root of its area) from one
    keyframe to the next, and that size changes by less than a factor of 1.6. Of all
    such pairings the one with the smallest movements is taken.
    """

    def centres_and_sizes(bboxes):
        spans = np.maximum(bboxes[:, 2:] - bboxes[:, :2], 1e-6)
        return (bboxes[:, 2:] + bboxes[:, :2]) / 2, np.sqrt(spans.prod(axis=1))

    centres, sizes = centres_and_sizes(before)
    other_centres, other_sizes = centres_and_sizes(after)
    scale = np.sqrt(sizes[:, None] * other_sizes)
    moved = np.linalg.norm(centres[:, None] - other_centres, axis=2) / scale
    grown = np.abs(np.log(sizes[:, None] / other_sizes))
    possible = (moved < 1) & (grown < np.log(1.6))
    impossible = 1e3
    rows, columns = linear_sum_assignment(np.where(possible, moved, impossible))
    return [(i, j) for i, j in zip(rows, columns, strict=True) if possible[i, j]]


def follow_persons(
    keyframes: Iterable[KeyframeDetections],
) -> Iterator[tuple[KeyframeDetections, list[int]]]:
    """Each keyframe with a number per person that lasts from keyframe to keyframe.

    It is the person's id, if there are any.
    """
    fresh = count()
    before, ids = None, []
    for found in keyframes:
        if found.ids is not None:
            yield found, found.ids
            continue
        known = {}
        if before is not None:
            if found.frame_index == before.frame_index:  # at short intervals
                continue
            pairs = match_persons(before.bboxes, found.bboxes)
            known = {j: ids[i] for i, j in pairs}
        persons = range(len(found.bboxes))
        ids = [known[one] if one in known else next(fresh) for one in persons]
        before = found
        yield found, ids


def annotated_frames(
    frames: Iterable[tuple[int, np.ndarray]],
    keyframes: Iterable[KeyframeDetections],
) -> Iterator[tuple[int, np.ndarray]]:
    """Draw detections on frames, in their order.

    Persons found at both neighbouring keyframes move in a straight line; others are
    shown at the frames nearest to their keyframe. Actions are those of the nearest.

    Args:
        frames: (index, RGB uint8 (h, w, 3)), the first not before the first keyframe.
        keyframes: In order of time; taken as the frames need them.
    """
    tracks = follow_persons(keyframes)
    before = next(tracks, None)
    after = next(tracks, None)
    for index, frame in frames:
        while after and index >= after[0].frame_index:
            before, after = after, next(tracks, None)
        if before is None:
            yield index, frame
            continue
        (near, ids), (far, far_ids) = before, after or before
        gap = far.frame_index - near.frame_index
        share = (index - near.frame_index) / gap if gap else 0.0
        if share >= 0.5:
            (near, ids), (far, far_ids), share = after, before, 1 - share
        bboxes = np.array(near.bboxes, float)
        for person, number in enumerate(ids):
            if number in far_ids:
                other = far.bboxes[far_ids.index(number)]
                bboxes[person] += share * (other - bboxes[person])
        colors = person_colors(ids)
        yield index, draw_detections(frame, bboxes, near.actions, colors=colors)


def render_video(
    video: str | Path,
    keyframes: Iterable[KeyframeDetections],
    out: str | Path,
    *,
    start: float = 0.0,
    end: float | None = None,
    show_progress: bool = False,
    on_damage: OnDamage | None = None,
) -> None:
    """Write a video with the detections drawn on each of its frames.

    As H.264, with the frames' own times and size (an odd width or height loses one
    pixel, which the codec cannot hold), and with the sound of the video as AAC, but
    for AVI. The file appears when it is whole.

    Args:
        video: Video file that was detected on.
        keyframes: Of :func:`detect_video`; taken as the frames need them.
        out: A file with one of the suffixes ``VIDEOS``.
        start, end: Part of the video in seconds; at least one frame is written.
        show_progress: Count the frames in the terminal.
        on_damage: Is told of what the file lacks, and of each frame that cannot be
            decoded, for which the one before stays; without it that is an error.

    Raises:
        UserError: a frame of ``video`` cannot be decoded, or ``out`` not be written.
    """
    source = open_video(video, on_damage)
    indices = source.part(start, end)
    span = source.times[indices[0]], source.end_of(indices[-1])
    with atomic_path(out) as part:
        with (
            tqdm(
                _whole_frames(source, indices, on_damage),
                total=len(indices),
                unit='frame',
                desc=Path(out).name,
                disable=not show_progress,
            ) as frames,
            # Else a line of the log would go into the middle of the bar.
            logging_redirect_tqdm([MMLogger.get_current_instance()]),
        ):
            drawn = annotated_frames(frames, keyframes)
            written = _write_video(source, drawn, part, span)
        # A full disk may be noticed by none of the writers.
        if len(open_video(part)) != written:
            raise UserError(f'{out} lacks frames after writing; is the disk full?')


def _whole_frames(
    video: Video, indices: Iterable[int], on_damage: OnDamage | None
) -> Iterator[tuple[int, np.ndarray]]:
    for index, picture in video.pictures(indices):
        if picture is not None:
            yield index, picture
        elif on_damage is None:
            raise video.damage(index)
        else:
            on_damage(video.damage(index))


def _write_video(
    source: Video,
    frames: Iterable[tuple[int, np.ndarray]],
    out: Path,
    span: tuple[float, float],
) -> int:
    """Write frames, and the sound of a span in seconds; returns how many they are."""
    rate = Fraction(source.fps).limit_denominator(1001)
    tick = source.time_base
    if out.suffix.lower() == '.avi':  # which has a frame at each tick
        tick = min(np.diff(source.times), default=1 / source.fps)
        tick = Fraction(float(tick)).limit_denominator(100_000)
    height, width = (side // 2 * 2 for side in source.size)
    written = 0

    def encoded() -> Iterator[av.Packet]:
        nonlocal written
        last = -1
        for index, frame in frames:
            even = np.ascontiguousarray(frame[:height, :width])
            picture = av.VideoFrame.from_ndarray(even)
            last = max(last + 1, round((source.times[index] - span[0]) / tick))
            picture.pts, picture.time_base = last, tick
            written += 1
            yield from stream.encode(picture)
        yield from stream.encode(None)

    with (
        av.open(f'file:{source.path}', metadata_errors='ignore') as heard,
        av.open(f'file:{out}', 'w') as target,
    ):
        stream = target.add_stream('h264', rate=rate, options=ENCODING)
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
        stream.codec_context.time_base = tick
        stream.codec_context.colorspace = Colorspace.ITU601
        sound = _encoded_sound(heard, target, *np.add(span, source.start_s).tolist())
        for packet in heapq.merge(
            encoded(), sound, key=lambda packet: packet.pts * packet.time_base
        ):
            target.mux(packet)
    return written


def _encoded_sound(
    source: InputContainer, target: OutputContainer, start: float, stop: float
) -> Iterator[av.Packet]:
    """The sound from ``start`` to ``stop``, in seconds, less what is damaged of it."""
    heard = source.streams.best('audio')
    if heard is None or target.format.name == 'avi':  # where times are those of ticks
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
