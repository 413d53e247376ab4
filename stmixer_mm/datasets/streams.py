"""Sources of frames: video files, and what is read once from beginning to end.

The latter are arrays, folders of pictures, cameras and URLs.
"""

import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from glob import glob, has_magic
from importlib import import_module
from itertools import tee
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from stmixer_mm.datasets.containers import FPS
from stmixer_mm.datasets.frames import VIDEO_SUFFIXES, has_reached
from stmixer_mm.datasets.videos import OnDamage, Video, open_video
from stmixer_mm.errors import UserError, blame, printable
from stmixer_mm.files import check_file
from stmixer_mm.pictures import check_frame_size

PICTURE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
CAMERA = '/dev/video'
LIVE = 'stmixer_mm.projects.common.live_sources'


class FrameStream:
    """Frames with their times, each read once.

    Iterating yields (seconds, RGB uint8 (h, w, 3)): frames of one size, times rising;
    other items raise ``UserError``.

    Args:
        items: Frames, or pairs of seconds and frame; or a function of this stream that
            yields them.
        name: Of the source, for messages.
        fps: Rate of frames that come without times.

    Attributes:
        size: (h, w) of the frames, None before the first.
        duration_s: Seconds from the first frame on; None if it is unknown, as of cameras.
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
        self.pixel_aspect = 1.0
        self._count = 0
        self._first_s = self._last_s = 0.0
        self._nominal_fps = FPS if fps is None else fps
        self._frames = self._check(items(self) if callable(items) else items)

    @property
    def fps(self) -> float:
        """The mean rate so far."""
        if self._count < 2:
            return self._nominal_fps
        return (self._count - 1) / (self._last_s - self._first_s)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        return self._frames

    def close(self) -> None:
        """Close the source."""
        self._frames.close()

    def branch(self) -> 'FrameStream':
        """A second reader of the same frames; those that only one has read are kept."""
        self._frames, other = tee(self._frames)
        return FrameStream(other, name=self.name, fps=self._nominal_fps)

    def _check(self, items: Iterable) -> Iterator[tuple[float, np.ndarray]]:
        for item in items:
            is_timed = isinstance(item, tuple) and len(item) == 2
            time_s, frame = (
                item if is_timed else (self._count / self._nominal_fps, item)
            )
            place = f'{self.name}: frame {self._count}, counted from 0,'
            if not is_picture(frame) or self.size not in (None, frame.shape[:2]):
                form = f'{type(frame).__name__}{getattr(frame, "shape", "")}'
                size = f' and of the size {self.size}' if self.size else ''
                raise UserError(
                    f'{place} is {form}; give RGB arrays (h, w, 3) of uint8{size}.'
                )
            with blame(f'{place} cannot be taken', 'scale or crop it'):
                check_frame_size(*frame.shape[:2])
            with blame(f'{place} has the time {time_s!r}', 'give rising seconds'):
                if not (self._last_s if self._count else -math.inf) < time_s < math.inf:
                    raise ValueError(f'after {self._last_s} s')
            self.size, self._last_s = frame.shape[:2], float(time_s)
            if not self._count:
                self._first_s = self._last_s
            self._count += 1
            yield self._last_s, frame


def is_picture(frame: object) -> bool:
    """True for an array (h, w, 3) of uint8 that is not empty."""
    is_array = isinstance(frame, np.ndarray) and frame.dtype == np.uint8
    return is_array and frame.ndim == 3 and frame.shape[2] == 3 and frame.size > 0


def list_sources(inputs: object) -> list:
    """The sources that a user names, one by one.

    Args:
        inputs: A video file, a folder of videos or of pictures, a list of files (.txt),
            a pattern (``videos/*.mp4``), a URL, a camera's number, ``-`` for standard
            input, frames as an array (T, h, w, 3) or an iterator; or a list of these.

    Raises:
        UserError: there is nothing of the kind.
    """
    if isinstance(inputs, list | tuple) and not any(map(is_picture, inputs[:1])):
        return [source for entry in inputs for source in list_sources(entry)]
    if not isinstance(inputs, str | Path) or is_live(inputs):
        return [inputs]
    sources = _named_by(str(inputs))
    if not sources:
        raise UserError(
            f'{inputs} names neither videos nor pictures; correct the folder, list or '
            'pattern.'
        )
    return sources


def _named_by(path: str) -> list[str]:
    """The sources of a path, folder, list or pattern."""
    if os.path.isdir(path):
        names = sorted(os.listdir(path))
        videos = [name for name in names if _is_named_like(name, VIDEO_SUFFIXES)]
        if not videos:
            return [path] if _pictures(path) else []
        files = (name for name in names if os.path.isfile(os.path.join(path, name)))
        _say_skipped(path, tuple(name for name in files if name not in videos))
        return [os.path.join(path, name) for name in videos]
    if path.lower().endswith('.txt'):
        check_file(path)
        with blame(f'{path}: the list', 'give a text file with a source in each line'):
            sources = Path(path).read_text('utf-8-sig').splitlines()
            return [_beside(path, line.strip()) for line in sources if line.strip()]
    if has_magic(path) and not os.path.exists(path):
        return sorted(glob(path, recursive=True))
    return [path]


def _is_named_like(name: str, suffixes: tuple[str, ...]) -> bool:
    """Also "._x.mp4" ends so, in which macOS keeps notes about x.mp4."""
    return name.lower().endswith(suffixes) and not name.startswith('._')


@cache
def _say_skipped(folder: str, names: tuple[str, ...]) -> None:
    """Say once which files of a folder are not taken for videos."""
    if names:
        examples = ', '.join(names[:5]) + ', …' * (len(names) > 5)
        print(
            f'{printable(folder)}: {len(names)} files are not videos by their names '
            f'and were skipped: {printable(examples)}',
            file=sys.stderr,
        )


def single_source(inputs: object) -> object:
    """The only source that :func:`list_sources` returns.

    Raises:
        UserError: there are more, or none.
    """
    sources = list_sources(inputs)
    if len(sources) != 1:
        raise UserError(f'{inputs} names {len(sources)} sources; give one at a time.')
    return sources[0]


def _beside(path: str, source: str) -> str:
    """A source of a list, which may be relative to it."""
    neighbour = os.path.join(os.path.dirname(path), source)
    is_there = os.path.exists(source) or is_live(source)
    return neighbour if not is_there and os.path.exists(neighbour) else source


def is_live(source: str | Path) -> bool:
    """True for the name of a stream, not of a file or a folder."""
    text = str(source)
    if text == '-' or '://' in text or text.startswith(CAMERA):
        return True
    return text.isdecimal() and not os.path.exists(text)


def open_source(
    source: object, *, fps: float | None = None, on_damage: OnDamage | None = None
) -> Video | FrameStream:
    """Open one of the sources of :func:`list_sources`.

    A video file is opened for random access, everything else to be read once.

    Args:
        source: Such a source, or one that is open.
        fps: Rate of frames that come without times: arrays, pictures.
        on_damage: For video files, see :func:`.open_video`.

    Raises:
        UserError: it cannot be opened; when iterating, also: it broke off.
    """
    if isinstance(source, Video | FrameStream):
        return source
    source = single_source(source)
    name = name_source(source)
    if not isinstance(source, str | Path | int):
        return FrameStream(source, name=name, fps=fps)
    text = str(source)
    if is_live(text):
        decode = import_module(LIVE).decode
        return FrameStream(partial(decode, source=text, fps=fps), name=name, fps=fps)
    if os.path.isdir(text):
        return FrameStream(_read_pictures(text), name=name, fps=fps)
    return open_video(text, on_damage)


def read_part(
    source: Video | FrameStream,
    start: float = 0.0,
    end: float | None = None,
    on_damage: OnDamage | None = None,
) -> Iterator[tuple[int, float, np.ndarray]]:
    """Number, seconds and picture of each frame of a part of a source.

    Args:
        source: From :func:`open_source`.
        start, end: Seconds since the first frame; when a frame begins counts.
        on_damage: Called for each frame of a file that cannot be decoded and is left
            out; without it that is an error.
    """
    if isinstance(source, FrameStream):
        yield from _part_of_stream(source, start, math.inf if end is None else end)
        return
    for index, picture in source.pictures(source.part(start, end)):
        if picture is not None:
            yield index, float(source.times[index]), picture
        elif on_damage is None:
            raise source.damage(index)
        else:
            on_damage(source.damage(index))


def _part_of_stream(
    stream: FrameStream, start: float, end: float
) -> Iterator[tuple[int, float, np.ndarray]]:
    begin, is_inside = None, False
    for index, (time_s, picture) in enumerate(stream):
        begin = time_s if begin is None else begin
        if is_inside and has_reached(time_s - begin, end):
            return
        is_inside = has_reached(time_s - begin, start)
        if is_inside:
            yield index, time_s, picture


def name_source(source: object) -> str:
    """The name of a source: its path, its URL, or its kind; see :func:`.printable`."""
    if isinstance(source, Video | FrameStream):
        return source.path if isinstance(source, Video) else source.name
    if not isinstance(source, str | Path | int):
        return 'frames'
    text = str(source)
    if text == '-':
        return 'standard input'
    if '://' in text:  # a password may have spaces
        text = text.replace(' ', '%20')
    return printable(f'camera {text}' if text.isdecimal() and is_live(text) else text)


def input_files(inputs: object) -> list[str]:
    """The files that are read of what :func:`list_sources` takes."""
    named = [inputs] if isinstance(inputs, str | Path) else []  # maybe a list (.txt)
    sources = [*named, *list_sources(inputs)]
    return [file for source in sources for file in source_files(source)]


def source_files(source: object) -> list[str]:
    """The files that are read of one source; none of what is no file."""
    name = str(source) if isinstance(source, str | Path) else name_source(source)
    name = '/dev/stdin' if name == '-' else name.removeprefix('file:')
    if os.path.isdir(name):
        return [os.path.join(name, picture) for picture in _pictures(name)]
    return [name] if os.path.exists(name) else []


def _pictures(folder: str) -> list[str]:
    """Names of the pictures in a folder, by the numbers in them."""
    names = [n for n in os.listdir(folder) if _is_named_like(n, PICTURE_SUFFIXES)]
    return sorted(
        names, key=lambda name: [(len(n), n) for n in re.findall(r'\d+|\D+', name)]
    )


def _read_pictures(folder: str) -> Iterator[np.ndarray]:
    for name in _pictures(folder):
        path = os.path.join(folder, name)
        check_file(path)
        with blame(f'{path} cannot be read as a picture', 'extract it again'):
            with Image.open(path) as header:  # before there is RAM for all of it
                check_frame_size(*header.size[::-1])
            picture = cv2.imread(path, cv2.IMREAD_COLOR)
            if picture is None:
                raise ValueError('it is damaged')
        yield np.ascontiguousarray(picture[..., ::-1])
