"""AVA's annotation files.

A line of an annotation file is
``video_id,timestamp,x1,y1,x2,y2,action_id,person_id`` without a header, boxes
normalised to [0, 1]. A line of a timestamp file (excluded or person-free keyframes)
is ``video_id,timestamp``.
"""

import functools
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from stmixer_mm.datasets.annotations.label_map import FORM, parse_label_map
from stmixer_mm.errors import UserError
from stmixer_mm.files import check_file

# Rounding to three decimals, as AVA's own files do, can push a box this far out.
BOX_TOLERANCE = 1e-3
MAX_ID = 10_000  # of a label map; labels have a column for each id

Row = TypeVar('Row')

_TIMESTAMP_FORM = 'video_id,timestamp with seconds from 0, without quotes or a header'
_KEYFRAME_FORM = (
    'video_id,timestamp,x1,y1,x2,y2,action_id,person_id with seconds from 0, an upright '
    'box in [0, 1] and whole ids, without quotes or a header'
)
_BOXES_FORM = (
    'video_id,timestamp,x1,y1,x2,y2 with an upright box in [0, 1], without quotes or a '
    'header'
)


class Fault(NamedTuple):
    """An error in a line of a file (``line`` None: in the whole file)."""

    file: str
    line: int | None
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f'{self.file}, line {self.line}'
        return f'{place}: {self.message}'


class KeyframeRow(NamedTuple):
    """An action of a person at a keyframe; or a keyframe, of a timestamp file."""

    line: int
    video_id: str
    timestamp: int | float  # seconds, as written in the file
    bbox_norm: tuple[float, ...] = ()  # xyxy in [0, 1]
    action_id: int = 0
    person_id: int = 0

    @property
    def key(self) -> str:
        return keyframe_key(self.video_id, self.timestamp)


# The rows of a keyframe follow one another.
@functools.lru_cache(maxsize=256)
def keyframe_key(video_id: str, timestamp: float) -> str:
    """The host's ``img_key``, also for fractions of a second.

    >>> keyframe_key('a', 902), keyframe_key('a', 1.5)
    ('a,0902', 'a,0001.5')
    """
    seconds = round(float(timestamp), 3)
    if seconds.is_integer():
        return f'{video_id},{int(seconds):04d}'
    return f'{video_id},{seconds:08.3f}'.rstrip('0')


def raise_first(faults: list[Fault]) -> None:
    """Raise ``UserError`` with the first fault and how many there are, if any."""
    if faults:
        sentence, count = str(faults[0]), len(faults) - 1
        if count:
            tail = f' ({count} more: run tools/check_dataset.py to list them).'
            sentence = sentence.removesuffix('.') + tail
        raise UserError(sentence)


def read_keyframe_rows(
    ann_file: str, *, num_classes: int = MAX_ID
) -> tuple[list[KeyframeRow], list[Fault]]:
    """All good rows and all faults of an AVA annotation file.

    Boxes that overstep [0, 1] by at most ``BOX_TOLERANCE`` are clipped. Action ids lie
    in 1 ... num_classes - 1.

    Raises:
        UserError: the file is not readable text, or has no line.
    """
    parse = functools.partial(_parse_keyframe, num_classes=num_classes)
    rows, faults = _read_rows(ann_file, parse, _KEYFRAME_FORM)
    if not rows and not faults:
        raise UserError(
            f'{ann_file}: the file has no annotation; write lines of {_KEYFRAME_FORM}.'
        )
    return rows, faults


def read_boxes(file: str) -> Iterator[KeyframeRow]:
    """Rows of a file of persons alone, of whom no action is named.

    Raises:
        UserError: at the first fault.
    """

    def parse(number: int, line: str) -> KeyframeRow:
        return KeyframeRow(number, *_parse_person(line))

    return right_lines(file, parse, _BOXES_FORM)


def read_timestamp_rows(file: str | None) -> tuple[list[KeyframeRow], list[Fault]]:
    """All good rows and all faults of a ``video_id,timestamp`` file, if there is one.

    Raises:
        UserError: the file is not readable text.
    """

    def parse(number: int, line: str) -> KeyframeRow:
        return KeyframeRow(number, *parse_moment(*line.split(',')))

    return _read_rows(file, parse, _TIMESTAMP_FORM) if file else ([], [])


def read_timestamp_keys(file: str | None) -> set[str]:
    """Keys of a timestamp file; the empty set for None, ``UserError`` on a fault."""
    rows, faults = read_timestamp_rows(file)
    raise_first(faults)
    return {row.key for row in rows}


def read_label_names(
    label_file: str | None, *, num_classes: int | None = None
) -> dict[int, str]:
    """Action id -> name of a label map (pbtxt), in order of the ids.

    None gives an empty map. Raises ``UserError`` for a label map that is missing,
    empty, broken, or wider than num_classes.
    """
    if label_file is None:
        return {}
    names = parse_label_map(read_text(label_file), source=label_file)
    last = MAX_ID if num_classes is None else num_classes - 1
    if not names or not 1 <= min(names) <= max(names) <= last:
        raise UserError(
            f'{label_file}: the ids are {sorted(names)[-9:]}, not from 1 to {last}; '
            f'write {FORM}, and leave out num_classes, if it is given.'
        )
    return dict(sorted(names.items()))


def read_classes(
    label_file: str | None, num_classes: int | None
) -> tuple[int, dict[int, str]]:
    """Number of classes with the dummy class 0, and names of the label map by id.

    Raises:
        UserError: the label map is faulty, or neither is given.
    """
    names = read_label_names(label_file, num_classes=num_classes)
    if not num_classes and not names:
        raise UserError('num_classes is unknown; give label_file or num_classes.')
    return num_classes or max(names) + 1, names


def _read_rows(
    file: str, parse: Callable[[int, str], Row], form: str
) -> tuple[list[Row], list[Fault]]:
    rows, faults = [], []
    for row in parse_lines(file, parse, form):
        (faults if isinstance(row, Fault) else rows).append(row)
    return rows, faults


def parse_lines(
    file: str, parse: Callable[[int, str], Row], form: str
) -> Iterator[Row | Fault]:
    """Rows that ``parse`` makes of the lines that are not blank, or their faults.

    Args:
        file: A text file.
        parse: Takes the number of a line, from 1, and the line; its ``ValueError`` tells
            the fault.
        form: The form of a line; if its first word has commas, it is the columns.

    Raises:
        UserError: the file is not readable text.
    """
    num_commas = form.split()[0].count(',')
    for number, line in enumerate(read_text(file).split('\n'), start=1):
        if not line.strip():
            continue
        line = line.rstrip()
        try:
            if num_commas and (count := line.count(',')) != num_commas:
                raise ValueError(f'{count + 1} columns instead of {num_commas + 1}')
            row = parse(number, line)
        except ValueError as error:
            message = (
                f'{line[:80]!r} is not {form} ({error!s:.200}); correct or remove it.'
            )
            row = Fault(file, number, message)
        yield row


def right_lines(
    file: str | Path, parse: Callable[[int, str], Row], form: str
) -> Iterator[Row]:
    """The rows of :func:`parse_lines`; ``UserError`` at the first fault."""
    for row in parse_lines(str(file), parse, form):
        if isinstance(row, Fault):
            raise UserError(str(row))
        yield row


def parse_moment(video_id: str, timestamp: str) -> tuple[str, int | float]:
    """Name of a video, and seconds as a row has them; ``ValueError`` for another form."""
    video_id, seconds = video_id.strip(), parse_number(timestamp)
    if not video_id or '"' in video_id:
        raise ValueError(f'the video_id is {video_id!r}')
    if not 0 <= seconds < math.inf:
        raise ValueError(f'the timestamp is {seconds:g}')
    return sys.intern(video_id), int(seconds) if seconds.is_integer() else seconds


def format_moment(video_id: str, seconds: float, *, file: str | Path) -> str:
    """``video_id,timestamp`` of a row; ``UserError`` for names that no csv can have."""
    if not {*video_id}.isdisjoint(',"\n'):
        raise UserError(
            f'{file}: the name {video_id!r} has a comma, a quote or a line break, which '
            'a csv cannot contain; rename the video.'
        )
    return f'{video_id},{seconds:.3f}'.rstrip('0').rstrip('.')


def parse_number(text: str, number_type: type = float) -> int | float:
    """A number; ``ValueError`` also for what only Python takes: 1_0, other digits."""
    if '_' in text or not text.isascii():
        raise ValueError(f'{text.strip()!r} is not a number')
    return number_type(text)


def read_text(file: str) -> str:
    """Text with line ends of ``\\n``."""
    check_file(file)
    try:
        return Path(file).read_text('utf-8-sig')
    except UnicodeDecodeError as error:
        line = error.object.count(b'\n', 0, error.start) + 1
        raise UserError(
            f'{file}, line {line}: the file is not UTF-8 text; unpack it, or save it '
            'as UTF-8.'
        ) from error


def _parse_keyframe(number: int, line: str, num_classes: int) -> KeyframeRow:
    person, action_id, person_id = line.rsplit(',', 2)
    action_id, person_id = parse_number(action_id, int), parse_number(person_id, int)
    if not 0 < action_id < num_classes or abs(person_id) >= 2**63:
        raise ValueError(
            f'the ids are {action_id} and {person_id}, with num_classes={num_classes}'
        )
    return KeyframeRow(number, *_parse_person(person), action_id, person_id)


# Each action of a person has a line, with the same text before it: read and kept once.
@functools.lru_cache(maxsize=256)
def _parse_person(text: str) -> tuple[str, int | float, tuple[float, ...]]:
    """``video_id,timestamp,x1,y1,x2,y2`` as a row has it."""
    video_id, timestamp, *corners = text.split(',')
    video_id, seconds = parse_moment(video_id, timestamp)
    x1, y1, x2, y2 = bbox = tuple(map(parse_number, corners))
    low, high = -BOX_TOLERANCE, 1 + BOX_TOLERANCE
    if not (low <= x1 <= x2 <= high and low <= y1 <= y2 <= high):
        raise ValueError(f'the box is {x1:g}, {y1:g}, {x2:g}, {y2:g}')
    return video_id, seconds, tuple(min(max(value, 0.0), 1.0) for value in bbox)
