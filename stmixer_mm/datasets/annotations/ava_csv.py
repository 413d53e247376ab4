"""AVA annotation files: what a good line is, and what to say of a bad one.

A line of an annotation file is
``video_id,timestamp,x1,y1,x2,y2,action_id,person_id`` without a header, boxes
normalised to [0, 1]. A line of a timestamp file (excluded or person-free keyframes)
is ``video_id,timestamp``.
"""

import functools
import math
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from stmixer_mm.datasets.annotations.label_map import FORM, parse_label_map
from stmixer_mm.errors import UserError
from stmixer_mm.files import check_file, kind_of

# Rounding to three decimals, as AVA's own files do, can push a box this far out.
BOX_TOLERANCE = 1e-3
MAX_ID = 10_000  # of a label map; labels have a column for each id

COLUMNS = 'video_id,timestamp,x1,y1,x2,y2,action_id,person_id'

_HEADER = re.compile(r'[a-z_ ]*(id|timestamp|time|seconds?|frame|action|label|person)')


class Fault(NamedTuple):
    """What is wrong with one line of a file (``line`` None: with the whole file)."""

    file: str
    line: int | None
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f'{self.file}, line {self.line}'
        return f'{place}: {self.message}'


class KeyframeRow(NamedTuple):
    """One person doing one action at one keyframe."""

    line: int
    video_id: str
    timestamp: int | float  # seconds, as written in the file
    bbox_norm: tuple[float, float, float, float]  # xyxy in [0, 1]
    action_id: int
    person_id: int

    @property
    def key(self) -> str:
        return keyframe_key(self.video_id, self.timestamp)


class TimestampRow(NamedTuple):
    """One keyframe named by a file of excluded or person-free keyframes."""

    line: int
    video_id: str
    timestamp: int | float

    @property
    def key(self) -> str:
        return keyframe_key(self.video_id, self.timestamp)


def keyframe_key(video_id: str, timestamp: float) -> str:
    """The host's ``img_key``, also for fractions of a second.

    >>> keyframe_key('a', 902), keyframe_key('a', 1.5)
    ('a,0902', 'a,0001.5')
    """
    return _keyframe_key(video_id, round(float(timestamp), 3))


# The rows of a keyframe follow one another.
@functools.lru_cache(maxsize=256)
def _keyframe_key(video_id: str, timestamp: float) -> str:
    if timestamp.is_integer():
        return f'{video_id},{int(timestamp):04d}'
    return f'{video_id},{timestamp:08.3f}'.rstrip('0')


def raise_first(faults: list[Fault]) -> None:
    """Raise ``UserError`` with the first fault and how many there are, if any."""
    if faults:
        more = len(faults) - 1
        tail = (
            f' ({more} more: run tools/check_dataset.py to list them)' if more else ''
        )
        raise UserError(str(faults[0]).removesuffix('.') + f'{tail}.')


def read_keyframe_rows(
    ann_file: str, *, num_classes: int | None = None
) -> tuple[list[KeyframeRow], list[Fault]]:
    """All good rows and all faults of an AVA annotation file.

    Args:
        ann_file: The csv file.
        num_classes: Classes with the dummy class 0: action ids must lie in
            1 ... num_classes - 1. None accepts every positive id.

    Boxes that overstep [0, 1] by at most ``BOX_TOLERANCE`` are clipped.
    """
    parse = functools.partial(_parse_keyframe, num_classes=num_classes)
    rows, faults = _read_rows(ann_file, parse)
    if not rows and not faults:
        message = (
            f'the file holds no annotation; write a line of {COLUMNS} for each action '
            'of each person.'
        )
        faults.append(Fault(ann_file, None, message))
    return rows, faults


def read_timestamp_rows(file: str) -> tuple[list[TimestampRow], list[Fault]]:
    """All good rows and all faults of a ``video_id,timestamp`` file (may be empty)."""
    return _read_rows(file, _parse_timestamp)


def read_timestamp_keys(file: str | None) -> set[str]:
    """Keys of a timestamp file; the empty set for None, ``UserError`` on a fault."""
    if file is None:
        return set()
    rows, faults = read_timestamp_rows(file)
    raise_first(faults)
    return {row.key for row in rows}


def read_label_names(
    label_file: str | None, *, num_classes: int | None = None
) -> dict[int, str]:
    """Action id -> name of a label map (pbtxt), in order of the ids.

    None gives an empty map. Raises ``UserError`` for a label map that is missing,
    empty, broken, ambiguous, or wider than num_classes.
    """
    if label_file is None:
        return {}
    text, unreadable = _read_text(label_file)
    if unreadable:
        raise_first([unreadable])
    names = parse_label_map(text, source=label_file)
    if not names:
        raise UserError(f'{label_file}: the label map has no item; write {FORM}.')
    if not 1 <= min(names) <= max(names) <= MAX_ID:
        wrong = min(names) if min(names) < 1 else max(names)
        raise UserError(
            f'{label_file}: the label map has id {wrong}; count ids from 1 on, since '
            f'class 0 is the dummy class, up to {MAX_ID}.'
        )
    if num_classes is not None and max(names) >= num_classes:
        raise UserError(
            f'{label_file}: the label map has id {max(names)}, but num_classes is '
            f'{num_classes}; leave it out, or set it to {count_classes(names)} (the '
            'dummy class 0 counts).'
        )
    return dict(sorted(names.items()))


def count_classes(names: Mapping[int, str]) -> int:
    """Classes of the action ids of a label map, with the dummy class 0."""
    if not names:
        raise UserError(
            'num_classes is not known without a label map; give label_file or '
            'num_classes.'
        )
    return max(names) + 1


def check_custom_classes(
    custom_classes: Collection[int],
    names: Mapping[int, str],
    num_classes: int | None = None,
) -> None:
    """Raise ``UserError`` unless custom_classes is a subset that fits the model."""
    count = len(custom_classes)
    if len(set(custom_classes)) < count or 0 in custom_classes:
        raise UserError(
            f'custom_classes {list(custom_classes)} must name each action once, and '
            'not the dummy class 0.'
        )
    if num_classes not in (None, count + 1):
        raise UserError(
            f'num_classes is {num_classes}, but custom_classes has {count} ids; leave '
            f'it out, or set num_classes to {count + 1}.'
        )
    unknown = sorted(set(custom_classes) - set(names))
    if unknown:
        raise UserError(
            f'custom_classes has the ids {unknown}, which the label map lacks; give '
            'label_file and take ids from it.'
        )


def read_lines(file: str) -> tuple[Iterable[tuple[int, str]], Fault | None]:
    """Numbered lines that are not blank, or the reason why there are none."""
    text, unreadable = _read_text(file)
    if unreadable:
        return [], unreadable
    numbered = enumerate(text.split('\n'), start=1)
    return ((n, line.rstrip()) for n, line in numbered if line.strip()), None


def _read_text(file: str) -> tuple[str, Fault | None]:
    try:
        check_file(file)
        text = decode_text(Path(file).read_bytes())
    except TextError as error:
        return '', Fault(file, error.line, str(error))
    except UserError as error:
        return '', Fault(file, None, str(error).removeprefix(f'{file}: '))
    return text.replace('\r\n', '\n').replace('\r', '\n'), None


class TextError(UserError):
    """Why bytes are not text, and the line from which on."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def decode_text(data: bytes) -> str:
    """UTF-8 text, with or without a byte-order mark.

    Raises:
        TextError: it is something else.
    """
    kind = kind_of(data)
    if kind is not None:
        raise TextError(1, f'the file is {kind}, not text; give the text in it.')
    try:
        text = data.decode('utf-8-sig')
        start, hint = data.find(b'\0'), ', probably UTF-16'
    except UnicodeDecodeError as error:
        start = error.start
        hint = ', probably UTF-16' if b'\0' in data[:100] else ''
    if start < 0:
        return text
    line = data.count(b'\n', 0, start) + 1
    raise TextError(line, f'it is not UTF-8 text{hint}; save the file as UTF-8.')


def remedy(line: str, field: str, otherwise: str) -> str:
    """What to do about a line, or about a field that is not a number."""
    if '"' in line:
        return 'remove the quotes'
    if re.search(r'[;\t]', line):
        return 'separate the columns by commas'
    is_words = ',' in line and re.search(r'\w', line) and not re.search(r'\d', line)
    if is_words or _HEADER.fullmatch(field.strip().lower()):
        return 'remove the header'
    return otherwise


def parse_float(text: str) -> float:
    """As ``float``, less what Python takes and other readers do not: 1_0, other digits.

    Raises:
        ValueError: it is not a number.
    """
    if '_' in text or not text.isascii():
        raise ValueError(text)
    return float(text)


def parse_id(text: str) -> int | None:
    """A whole number of 64 bits, or None."""
    if '_' in text or not text.isascii():
        return None
    try:
        value = int(text)
    except ValueError:
        return None
    return value if abs(value) < 2**63 else None


def video_message(video_id: str) -> str | None:
    """What is wrong with the name of a video."""
    if not video_id:
        return 'the video_id is empty; write the name of the video.'
    if video_id[0] == video_id[-1] == '"':
        return f'the video_id {video_id} is quoted; remove the quotes.'
    return None


def _read_rows(
    file: str, parse: Callable[[int, str], NamedTuple]
) -> tuple[list, list[Fault]]:
    """What ``parse`` makes of the lines, and faults for those that it refuses."""
    rows, faults = [], []
    lines, unreadable = read_lines(file)
    if unreadable:
        return rows, [unreadable]
    for number, line in lines:
        try:
            rows.append(parse(number, line))
        except UserError as error:
            faults.append(Fault(file, number, str(error)))
    return rows, faults


def _parse_timestamp(number: int, line: str) -> TimestampRow:
    fields = [field.strip() for field in line.split(',')]
    timestamp = _timestamp(fields[1]) if len(fields) == 2 else None
    if timestamp is None or video_message(fields[0]):
        raise UserError(
            f'{_shorten(line)} is not "video_id,timestamp in seconds"; '
            f'{remedy(line, fields[-1], "correct or remove it")}.'
        )
    return TimestampRow(number, fields[0], timestamp)


def _parse_keyframe(number: int, line: str, num_classes: int | None) -> KeyframeRow:
    num_columns = line.count(',') + 1
    if num_columns != 8:
        raise UserError(
            f'{_shorten(line)} has {num_columns} columns instead of the 8 of '
            f'{COLUMNS}; {remedy(line, "", "write these and no others")}.'
        )
    person, *texts = line.rsplit(',', 2)
    ids = [parse_id(text) for text in texts]
    if None in ids:
        if not line.split(',', 2)[2].strip(', '):
            raise UserError(
                'it has no box; list keyframes without a person in '
                'empty_keyframes_file.'
            )
        which = ids.index(None)
        meant = ('write its id in the label map', 'number the persons of a video')
        raise UserError(
            f'the {("action_id", "person_id")[which]} {texts[which].strip()!r} is not a '
            f'whole number; {remedy(line, texts[which], meant[which])}.'
        )
    row = KeyframeRow(number, *_parse_person(person), *ids)
    if row.action_id < 1:
        raise UserError(
            f'the action id {row.action_id} is unknown; use the ids of the label map, '
            'from 1 on.'
        )
    if num_classes is not None and row.action_id >= num_classes:
        raise UserError(
            f'the action id {row.action_id} is unknown; use 1 to {num_classes - 1}, or '
            'correct num_classes or the label map.'
        )
    return row


# Each action of a person has a line, with the same text before it: read and kept once.
@functools.lru_cache(maxsize=256)
def _parse_person(text: str) -> tuple[str, int | float, tuple[float, ...]]:
    """``video_id,timestamp,x1,y1,x2,y2`` as a row has it."""
    video_id, timestamp, *corners = (field.strip() for field in text.split(','))
    if message := video_message(video_id):
        raise UserError(message)
    seconds = _timestamp(timestamp)
    if seconds is None:
        raise UserError(
            f'the timestamp {timestamp!r} is not a number of seconds from 0 upwards; '
            f'{remedy(text, timestamp, "correct it")}.'
        )
    try:
        bbox = [parse_float(corner) for corner in corners]
    except ValueError:
        raise UserError(
            f'the box {_shorten(",".join(corners))} is not four numbers; '
            f'{remedy(text, "", "write x1,y1,x2,y2 in [0, 1]")}.'
        ) from None
    _check_bbox(*bbox)
    bbox_norm = tuple(min(max(value, 0.0), 1.0) for value in bbox)
    return sys.intern(video_id), seconds, bbox_norm


def _check_bbox(x1: float, y1: float, x2: float, y2: float) -> None:
    low, high = -BOX_TOLERANCE, 1 + BOX_TOLERANCE
    if low <= x1 <= x2 <= high and low <= y1 <= y2 <= high:
        return
    bbox = (x1, y1, x2, y2)
    shown = 'the box (' + ', '.join(f'{value:g}' for value in bbox) + ')'
    if not all(map(math.isfinite, bbox)):
        raise UserError(f'{shown} is not finite; correct or remove the line.')
    if all(low <= value <= high for value in bbox):
        raise UserError(f'{shown} is upside down; write it as x1,y1,x2,y2.')
    raise UserError(f'{shown} leaves [0, 1]; divide x by the width, y by the height.')


def _timestamp(text: str) -> int | float | None:
    try:
        value = parse_float(text)
    except ValueError:
        return None
    if not math.isfinite(value) or value < 0:
        return None
    return int(value) if value.is_integer() else value


def _shorten(text: str, length: int = 80) -> str:
    return repr(text if len(text) <= length else f'{text[:length]}...')
