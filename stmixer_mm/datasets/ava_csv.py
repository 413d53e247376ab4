"""AVA annotation files: what a good line is, and what to say of a bad one.

A line of an annotation file is
``video_id,timestamp,x1,y1,x2,y2,action_id,person_id`` without a header, boxes
normalised to [0, 1]. A line of a timestamp file (excluded or person-free keyframes)
is ``video_id,timestamp``.
"""

import math
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from mmaction.evaluation import read_labelmap

# Rounding to three decimals, as AVA's own files do, can push a box this far out.
BOX_TOLERANCE = 1e-3

_LABEL_MAP_FORM = (
    "each item needs a line 'name: \"...\"' and a line 'id: N' with an id of its "
    'own, both indented by two spaces'
)


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
    timestamp = round(float(timestamp), 3)
    if timestamp.is_integer():
        return f'{video_id},{int(timestamp):04d}'
    return f'{video_id},{timestamp:08.3f}'.rstrip('0')


def raise_first(faults: list[Fault]) -> None:
    """Raise an error that tells the first fault and how many there are.

    ``FileNotFoundError`` when the file is missing, else ``ValueError``.
    """
    if not faults:
        return
    more = len(faults) - 1
    tail = f' ({more} more: run tools/check_dataset.py to list them)' if more else ''
    kind = ValueError if Path(faults[0].file).is_file() else FileNotFoundError
    raise kind(f'{faults[0]}{tail}')


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
    rows, faults = [], []
    lines, unreadable = _read_lines(ann_file)
    if unreadable:
        return rows, [unreadable]
    for number, line in lines:
        row, message = _parse_keyframe(number, line, num_classes)
        if message is None:
            rows.append(row)
        else:
            faults.append(Fault(ann_file, number, message))
    if not rows and not faults:
        faults.append(Fault(ann_file, None, 'the file holds no annotation.'))
    return rows, faults


def read_timestamp_rows(file: str) -> tuple[list[TimestampRow], list[Fault]]:
    """All good rows and all faults of a ``video_id,timestamp`` file (may be empty)."""
    rows, faults = [], []
    lines, unreadable = _read_lines(file)
    if unreadable:
        return rows, [unreadable]
    for number, line in lines:
        fields = [field.strip() for field in line.split(',')]
        timestamp = _timestamp(fields[1]) if len(fields) == 2 else None
        if timestamp is None or not fields[0]:
            message = f'{_shorten(line)} is not "video_id,timestamp in seconds".'
            faults.append(Fault(file, number, message))
        else:
            rows.append(TimestampRow(number, fields[0], timestamp))
    return rows, faults


def read_timestamp_keys(file: str | None) -> set[str]:
    """Keys of a timestamp file; the empty set for None, ``ValueError`` on a fault."""
    if file is None:
        return set()
    rows, faults = read_timestamp_rows(file)
    raise_first(faults)
    return {row.key for row in rows}


def read_label_names(
    label_file: str | None, *, num_classes: int | None = None
) -> dict[int, str]:
    """Action id -> name of a label map (pbtxt), in order of the ids.

    None gives an empty map. Raises ``FileNotFoundError`` or ``ValueError`` for a
    label map that is missing, empty, broken, ambiguous, or wider than num_classes.
    """
    if label_file is None:
        return {}
    lines, unreadable = _read_lines(label_file)
    if unreadable:
        raise_first([unreadable])
    try:
        items, _ = read_labelmap([f'{line}\n' for _, line in lines])
    except (IndexError, ValueError) as error:
        raise ValueError(
            f'{label_file}: an item of the label map is broken ({error}); '
            f'{_LABEL_MAP_FORM}.'
        ) from error
    names = {item['id']: item['name'] for item in items}
    if not names or len(names) < len(items):
        what = 'names an id twice' if names else 'has no item that can be read'
        raise ValueError(f'{label_file}: the label map {what}; {_LABEL_MAP_FORM}.')
    if min(names) < 1:
        raise ValueError(
            f'{label_file}: the label map has id {min(names)}; ids start at 1, since '
            'class 0 is the dummy class.'
        )
    if num_classes is not None and max(names) >= num_classes:
        raise ValueError(
            f'{label_file}: the label map has id {max(names)}, but num_classes is '
            f'{num_classes}; set it to {max(names) + 1} (the dummy class 0 counts).'
        )
    return dict(sorted(names.items()))


def check_custom_classes(
    custom_classes: Collection[int], names: dict[int, str], num_classes: int
) -> None:
    """Raise ``ValueError`` unless custom_classes is a subset that fits the model."""
    if len(set(custom_classes)) < len(custom_classes) or 0 in custom_classes:
        raise ValueError(
            f'custom_classes {list(custom_classes)} must name each action once, and '
            'not the dummy class 0.'
        )
    if num_classes != len(custom_classes) + 1:
        raise ValueError(
            f'num_classes is {num_classes}, but custom_classes has '
            f'{len(custom_classes)} ids; set num_classes to {len(custom_classes) + 1}.'
        )
    unknown = sorted(set(custom_classes) - set(names))
    if unknown:
        raise ValueError(
            f'custom_classes has the ids {unknown}, which the label map lacks; give '
            'label_file and take ids from it.'
        )


def _read_lines(file: str) -> tuple[list[tuple[int, str]], Fault | None]:
    """Numbered lines that are not blank, or the reason why there are none."""
    path = Path(file)
    if not path.is_file():
        return [], Fault(file, None, 'the file does not exist.')
    try:
        text = path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError:
        return [], Fault(file, None, 'the file is not UTF-8 text.')
    numbered = enumerate(text.split('\n'), start=1)
    return [(n, line.rstrip()) for n, line in numbered if line.strip()], None


def _parse_keyframe(
    number: int, line: str, num_classes: int | None
) -> tuple[KeyframeRow | None, str | None]:
    fields = [field.strip() for field in line.split(',')]
    if len(fields) != 8:
        return None, (
            f'{_shorten(line)} has {len(fields)} columns instead of the 8 of '
            'video_id,timestamp,x1,y1,x2,y2,action_id,person_id.'
        )
    if not fields[0]:
        return None, 'the video_id is empty.'
    timestamp = _timestamp(fields[1])
    if timestamp is None:
        return None, (
            f'the timestamp {fields[1]!r} is not a number of seconds from 0 upwards.'
        )
    try:
        bbox = [float(field) for field in fields[2:6]]
    except ValueError:
        return None, f'the box {_shorten(",".join(fields[2:6]))} is not four numbers.'
    ids = [_integer(field) for field in fields[6:]]
    if ids[0] is None or ids[1] is None:
        which = 'action_id' if ids[0] is None else 'person_id'
        value = fields[6] if ids[0] is None else fields[7]
        return None, f'the {which} {value!r} is not a whole number.'
    message = _bbox_message(bbox) or _action_message(ids[0], num_classes)
    if message:
        return None, message
    x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in bbox)
    return KeyframeRow(number, fields[0], timestamp, (x1, y1, x2, y2), *ids), None


def _bbox_message(bbox: list[float]) -> str | None:
    x1, y1, x2, y2 = bbox
    low, high = -BOX_TOLERANCE, 1 + BOX_TOLERANCE
    if low <= x1 <= x2 <= high and low <= y1 <= y2 <= high:
        return None
    shown = '(' + ', '.join(f'{value:g}' for value in bbox) + ')'
    if all(low <= value <= high for value in bbox):
        return f'the box {shown} is upside down; write it as x1,y1,x2,y2.'
    return f'the box {shown} leaves [0, 1]; divide x by the width, y by the height.'


def _action_message(action_id: int, num_classes: int | None) -> str | None:
    if action_id < 1:
        return f'the action id {action_id} is unknown; ids start at 1.'
    if num_classes is not None and action_id >= num_classes:
        return (
            f'the action id {action_id} is unknown; with num_classes={num_classes} '
            f'ids go from 1 to {num_classes - 1}.'
        )
    return None


def _timestamp(text: str) -> int | float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    if not math.isfinite(value) or value < 0:
        return None
    return int(value) if value.is_integer() else value


def _integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _shorten(text: str, length: int = 80) -> str:
    return repr(text if len(text) <= length else f'{text[:length]}...')
