"""What the files of all tools are read into."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from stmixer_mm.datasets.frames import without_suffix

# Values of a select that mean that nothing was chosen; '__undefined__' is CVAT's.
NO_ACTION = ('', 'none', 'no action', '__undefined__')
# What tools write beside the annotators' own attributes.
TOOL_ATTRIBUTES = (
    *('occluded', 'outside', 'keyframe', 'track_id', 'instance_id', 'rotation'),
    *('source', 'truncated', 'difficult', 'group', 'z_order'),
)
MAX_FRAME = 10_000_000  # four days at 30 frames per second


class Shape(NamedTuple):
    """A person in a frame."""

    frame: int
    bbox: tuple[float, float, float, float]  # pixel xyxy, may leave the frame
    actions: tuple[str, ...]
    outside: bool  # True: from this frame on the person is not seen
    place: str  # where in the file


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


@dataclass(kw_only=True)
class Annotations:
    """What a file says."""

    videos: list[AnnotatedVideo]
    actions: list[str]  # all that it may hold, in the order of their ids
    labels: list[str]  # of persons and things
    attributes: list[str]  # names of all there are, with actions or not
    labels_are_actions: bool  # True: no attribute holds any
    passed_over: Counter = field(default_factory=Counter)  # boxes by label: no persons


def is_frame_rate(fps: float) -> bool:
    return 1e-4 <= fps <= 1e4


def video_names(*given: str) -> list[str]:
    """Names that the file of a video may have, the likeliest of those given first."""
    named = (name for one in given if one for name in (one, without_suffix(one)))
    return list(dict.fromkeys(named))


def fault_at(file: str, place: str, message: str) -> ValueError:
    return ValueError(f'{file}, {place}: {message}')


def read_number(value: object) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def read_frame(value: object, *, first: int = 0) -> int | None:
    number = read_number(value)
    if number is None or not number.is_integer() or not first <= number <= MAX_FRAME:
        return None
    return int(number)
