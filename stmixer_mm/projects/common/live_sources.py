"""Frames of cameras, URLs and standard input."""

import io
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter

from stmixer_mm.datasets.containers import (
    FPS,
    RisingClock,
    open_container,
    pixel_aspect,
    rgb_picture,
)
from stmixer_mm.datasets.streams import CAMERA, FrameStream
from stmixer_mm.errors import blame

OPEN_S, READ_S = 10.0, 10.0  # until a source counts as gone


def decode(
    opened: FrameStream, source: str, fps: float | None
) -> Iterator[tuple[float, np.ndarray]]:
    """Frames of what ffmpeg can open, with seconds since the first."""
    is_piped = source == '-'
    # An mp4 file may have at its end what is needed first.
    piped = 'pipe a form that begins with its head (mkv, mpegts, …)'
    remedy = piped if is_piped else 'see whether it is there and sends video'
    with blame(f'{opened.name} cannot be opened', remedy), _in_words(OPEN_S):
        container, stream = _open_stream(source)
    if container.duration is not None:
        opened.duration_s = container.duration / av.time_base
    to_rgb, aspect = VideoReformatter(), pixel_aspect(stream)
    opened.pixel_aspect = aspect
    clock = RisingClock(1 / float(stream.average_rate or fps or FPS))
    remedy = piped if is_piped else 'open it again'
    with closing(container), blame(f'{opened.name} broke off', remedy):
        for frame in _sound_frames(container, stream):
            yield clock.read(frame.time), rgb_picture(to_rgb, frame, aspect=aspect)


def _open_stream(source: str) -> tuple[InputContainer, av.VideoStream]:
    if source == '-':
        # Unbuffered, so that a frame is here as soon as it was written.
        return open_container(io.FileIO(sys.stdin.fileno(), closefd=False))
    times = dict(timeout=(OPEN_S, READ_S))
    if source.isdecimal() or source.startswith(CAMERA):
        camera = CAMERA + source.removeprefix(CAMERA)
        return open_container(camera, form='v4l2', **times)
    transport = dict(rtsp_transport='tcp') if source.startswith('rtsp') else {}
    return open_container(source, **times, **transport)


def _sound_frames(
    container: InputContainer, stream: av.VideoStream
) -> Iterator[av.VideoFrame]:
    with _in_words(READ_S):
        for packet in container.demux(stream):
            with suppress(av.InvalidDataError):  # what was lost on the way
                yield from (frame for frame in packet.decode() if not frame.is_corrupt)


@contextmanager
def _in_words(seconds: float) -> Iterator[None]:
    """Raise ffmpeg's errors without the source's name, which may contain a password."""
    try:
        yield
    except av.ExitError as error:
        raise TimeoutError(f'nothing came for {seconds:g} s') from error
    except av.FFmpegError as error:
        raise OSError(error.strerror) from error
