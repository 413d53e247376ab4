"""What the files of all annotation tools are read into."""

import math
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from stmixer_mm.datasets.frames import without_suffix

MAX_FRAME = 10_000_000  # four days at 30 frames per second
FRAME_RATES = 1e-4, 1e4  # least and largest that can be


class Shape(NamedTuple):
    """A person in a frame."""

    frame: int
    bbox: tuple[float, float, float, float]  # pixel xyxy, may leave the frame
    actions: tuple[str, ...]
    outside: bool  # True: from this frame on the person is not seen
    place: str  # file, and line or item
    rotation: float = 0  # of the box around its centre, in degrees
    label: str = ''
    given: Mapping[str, Sequence[str]] = MappingProxyType({})  # actions by attribute
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
    """What a file says of one video."""

    file: str
    names: list[str]  # that its file may have, the likeliest first
    size: tuple[float, float] | None = None  # width and height of the annotated frames
    fps: float | None = None
    frames: Sequence[int] | None = None  # annotated ones, rising; None: all there are
    tracks: list[list[Shape]] = field(default_factory=list)  # each by rising frame
    interpolate: bool = False  # between the shapes of a track
    unclear: set[int] = field(default_factory=set)  # frames with persons to be ignored


@dataclass(kw_only=True)
class Annotations:
    """What a file says."""

    videos: list[AnnotatedVideo]
    labels: list[str]  # of persons and things
    attributes: list[tuple[str, str]]  # labels and names of all, with actions or not
    # Actions by label and attribute, of persons, where the file declares them.
    declared: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    num_ignored: int = 0  # boxes of crowds, or marked to be ignored


@dataclass(kw_only=True)
class Summary:
    """What was written, and what was not."""

    files: list[str] = field(default_factory=list)
    num_videos: int = 0
    num_keyframes: int = 0
    num_empty: int = 0
    num_masks: int = 0
    num_persons: int = 0
    num_clipped: int = 0  # boxes that left the frame in part
    num_outside: int = 0  # boxes that left it as a whole
    num_idle: int = 0  # keyframes left out, since a person does nothing there
    num_ignored: int = 0  # boxes of crowds, or marked to be ignored
    passed_over: Counter = field(default_factory=Counter)
    other_attributes: list[str] = field(default_factory=list)
    class_counts: Counter = field(default_factory=Counter)


def is_frame_rate(fps: float) -> bool:
    return FRAME_RATES[0] <= fps <= FRAME_RATES[1]


def unique(names: Iterable[str]) -> list[str]:
    """Each name once, in the order in which they come."""
    return list(dict.fromkeys(names))


def video_names(*given: str) -> list[str]:
    """Names that the file of a video may have, the likeliest of those given first."""
    return unique(name for one in given if one for name in (one, without_suffix(one)))


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
