"""Records that the files of all annotation tools are read into."""

import math
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from stmixer_mm.datasets.frames import without_suffix

MAX_FRAME = 10_000_000  # four days at 30 frames per second
FRAME_RATES = 1e-4, 1e4  # lowest and highest


class Shape(NamedTuple):
    """A person in a frame."""

    frame: int
    bbox: tuple[float, float, float, float]  # pixel xyxy, may leave the frame
    outside: bool  # True: from this frame on the person is not seen
    place: str = ''  # file, and track and frame, or item
    label: str = ''
    attributes: Mapping[str, object] = MappingProxyType({})  # as written
    actions: tuple[str, ...] = ()
    rotation: float = 0  # of the box around its centre, in degrees
    # COCO's, in this very frame; between shapes it is not known.
    segmentation: object = None

    def enclosing_bbox(self) -> tuple[float, float, float, float]:
        """The upright box around the one that is rotated."""
        if not self.rotation:
            return self.bbox
        x1, y1, x2, y2 = self.bbox
        angle = math.radians(self.rotation)
        cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
        half_w = ((x2 - x1) * cos + (y2 - y1) * sin) / 2
        half_h = ((x2 - x1) * sin + (y2 - y1) * cos) / 2
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        return x - half_w, y - half_h, x + half_w, y + half_h


@dataclass(kw_only=True)
class AnnotatedVideo:
    """The annotation of one video in a file."""

    file: str
    names: list[str]  # that the video's file may have, the likeliest first
    size: tuple[float, float] | None = None  # width and height of the annotated frames
    fps: float | None = None
    frames: Sequence[int] | None = None  # annotated ones, rising; None: all there are
    tracks: list[list[Shape]] = field(default_factory=list)  # each by rising frame
    interpolate: bool = False  # between the shapes of a track
    num_unread: int = 0  # shapes that are not boxes, polygons or masks
    # Frames of boxes of crowds, or marked to be ignored.
    unclear: list[int] = field(default_factory=list)


@dataclass(kw_only=True)
class Annotations:
    """The content of a file."""

    videos: list[AnnotatedVideo]
    labels: list[str]  # of persons and things
    # Choices by label and attribute, where the file declares attributes: [] of a
    # checkbox, None if it is no choice.
    declared: dict[tuple[str, str], list[str] | None] = field(default_factory=dict)


@dataclass(kw_only=True)
class Conversion:
    """Counts of what was written, and notes of what was changed or left out."""

    files: list[str] = field(default_factory=list)
    num_videos: int = 0
    num_keyframes: int = 0
    num_empty: int = 0
    num_persons: int = 0
    num_masks: int = 0
    class_counts: Counter = field(default_factory=Counter)
    notes: Counter = field(default_factory=Counter)  # how many by sentence

    def __str__(self) -> str:
        width = max(map(len, self.class_counts), default=0)
        return '\n'.join(
            [
                f'{self.num_videos} videos, {self.num_keyframes} keyframes '
                f'({self.num_empty} person-free), {self.num_persons} persons, '
                f'{self.num_masks} masks',
                *(f'  {name:<{width}} {n:>8}' for name, n in self.class_counts.items()),
                *(f'{count} {what}' for what, count in self.notes.items() if count),
                'written: ' + ', '.join(self.files),
            ]
        )


def is_frame_rate(fps: float) -> bool:
    return FRAME_RATES[0] <= fps <= FRAME_RATES[1]


def unique(names: Iterable[str]) -> list[str]:
    """Each name once, in the order in which they come."""
    return list(dict.fromkeys(names))


def video_names(*given: str) -> list[str]:
    """Names that the file of a video may have, the likeliest of those given first."""
    return unique(name for one in given if one for name in (one, without_suffix(one)))


def is_true(value: object) -> bool:
    return str(value).strip().lower() in ('1', 'true')


def read_number(value: object) -> float | None:
    """A finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def read_size(entry: Mapping[str, object]) -> tuple[float, float] | None:
    """Width and height in pixels; None unless both are there and above 0."""
    size = tuple(read_number(entry.get(key)) for key in ('width', 'height'))
    return size if all(value and value > 0 for value in size) else None


def read_frame(value: object, *, first: int = 0) -> int:
    """The number of a frame; ValueError for anything else."""
    number = read_number(value)
    if number is None or not number.is_integer() or not first <= number <= MAX_FRAME:
        raise ValueError(
            f'the frame {reprlib.repr(value)} is not a whole number from {first} to '
            f'{MAX_FRAME}'
        )
    return int(number)
