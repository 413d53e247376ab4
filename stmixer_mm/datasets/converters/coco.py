"""JSON as COCO's, with videos."""

import json
import reprlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from stmixer_mm.datasets.converters.records import (
    MAX_FRAME,
    TOOL_ATTRIBUTES,
    AnnotatedVideo,
    Annotations,
    Shape,
    action_of,
    fault_at,
    is_frame_rate,
    is_true,
    read_frame,
    read_number,
    read_size,
    video_names,
)
from stmixer_mm.errors import UserError


def read_coco(
    file: str,
    data: bytes,
    persons: Collection[str] | None,
    wanted: Collection[str] | None,
    first_frame: int,
) -> Annotations:
    content = _load_json(file, data)
    tables = {
        key: _table(file, content, key)
        for key in ('videos', 'images', 'annotations', 'categories')
    }
    labels: dict[object, str] = {}
    for place, entry in _entries(file, tables, 'categories'):
        name = str(_get(file, place, entry, 'name')).strip()
        key = _get(file, place, entry, 'id')
        if labels.get(key) != name:  # files that were merged have some twice
            _add(file, place, labels, key, name)
    videos: dict[object, AnnotatedVideo] = {}
    for place, entry in _entries(file, tables, 'videos'):
        name = str(_get(file, place, entry, 'name', 'file_name'))
        fps = read_number(entry.get('fps'))
        _add(
            file,
            place,
            videos,
            _get(file, place, entry, 'id'),
            AnnotatedVideo(
                file=file,
                names=video_names(name, Path(name).name),
                size=read_size(entry),
                fps=fps if fps and is_frame_rate(fps) else None,
            ),
        )
    images: dict[object, tuple[object, int]] = {}  # id -> video id, frame
    frames: dict[object, dict[int, str]] = {key: {} for key in videos}  # their places
    for place, entry in _entries(file, tables, 'images'):
        video_id = _known_id(file, place, entry, 'video_id', videos)
        given = _get(file, place, entry, 'frame_id', 'frame_index')
        number = read_frame(given, first=first_frame)
        if number is None:
            raise fault_at(
                file,
                place,
                f'the frame {reprlib.repr(given)} is no whole number from {first_frame} '
                f'to {MAX_FRAME}; correct it, or say which number the first frame has.',
            )
        frame = number - first_frame
        if frame in frames[video_id]:
            raise fault_at(
                file,
                place,
                f'frame {number} of its video is {frames[video_id][frame]} already; '
                'correct the frame of one.',
            )
        frames[video_id][frame] = place
        _add(file, place, images, _get(file, place, entry, 'id'), (video_id, frame))
        video = videos[video_id]
        video.size = video.size or read_size(entry)

    annotations = [
        (
            place,
            entry,
            labels[_known_id(file, place, entry, 'category_id', labels)],
        )
        for place, entry in _entries(file, tables, 'annotations')
    ]
    if persons is not None:
        annotations = [one for one in annotations if one[2] in persons]
    annotations = [
        (place, entry, label, _attributes(file, place, entry))
        for place, entry, label in annotations
    ]
    known_attributes = _names(attributes for *_, attributes in annotations)
    ignored = [
        images[_known_id(file, place, entry, 'image_id', images)]
        for place, entry, *_ in annotations
        if _is_ignored(entry)
    ]
    annotations = [one for one in annotations if not _is_ignored(one[1])]
    given = [_coco_actions(attributes, wanted) for *_, attributes in annotations]
    has_actions = {
        label
        for (_, _, label, _), by_name in zip(annotations, given, strict=True)
        if by_name
    }
    passed_over: Counter = Counter()
    tracks: dict[tuple, dict[int, Shape]] = {}
    for index, (place, entry, label, attributes) in enumerate(annotations):
        image_id = _known_id(file, place, entry, 'image_id', images)
        if has_actions and label not in has_actions:
            passed_over[label] += 1
            continue
        video_id, frame = images[image_id]
        actions = tuple(_names(given[index].values())) if has_actions else (label,)
        bbox = _coco_bbox(file, place, entry)
        # Other tools' attributes of this name may be something else.
        rotation = read_number(attributes.get('rotation')) or 0
        shape = Shape(frame, bbox, actions, False, place, rotation)
        track_id = _track_id(entry, attributes)
        track = (video_id, 'box', index) if track_id is None else (video_id, track_id)
        earlier = tracks.setdefault(track, {}).get(frame)
        if earlier is not None and earlier.enclosing_bbox() != shape.enclosing_bbox():
            raise fault_at(
                file,
                place,
                f'track {track_id} has another box in this frame in {earlier.place}; '
                'correct the track id of one.',
            )
        if earlier is not None:  # one entry for each action
            shape = shape._replace(
                actions=tuple(dict.fromkeys(earlier.actions + actions))
            )
        tracks[track][frame] = shape
    for (video_id, *_), shapes in tracks.items():
        videos[video_id].tracks.append([shapes[frame] for frame in sorted(shapes)])
    # Where persons are ignored and nobody else is seen, it is not without persons.
    unclear = set(ignored) - {
        (video_id, frame) for (video_id, *_), one in tracks.items() for frame in one
    }
    for key, video in videos.items():
        video.frames = [n for n in sorted(frames[key]) if (key, n) not in unclear]
    if has_actions:
        names = sorted(_names(one for by_name in given for one in by_name.values()))
    else:
        names = [n for n in labels.values() if persons is None or n in persons]
    of_persons = _names(attributes for *_, attributes in annotations)
    read_attributes = _names(given)
    return Annotations(
        videos=list(videos.values()),
        actions=list(dict.fromkeys(names)),
        labels=list(labels.values()),
        attributes=known_attributes,
        labels_are_actions=not has_actions,
        passed_over=passed_over,
        other_attributes=[n for n in of_persons if n not in read_attributes],
        num_ignored=len(ignored),
    )


def _load_json(file: str, data: bytes) -> dict:
    try:
        return json.loads(data.decode(json.detect_encoding(data)))
    except json.JSONDecodeError as error:
        raise fault_at(
            file,
            f'line {error.lineno}',
            f'the JSON is broken ({error.msg}); export it again.',
        ) from error
    except UnicodeDecodeError as error:
        line = 1 + data[: error.start].count(b'\n')
        raise fault_at(
            file, f'line {line}', 'the file is not UTF-8 text; save it as UTF-8.'
        ) from error
    except RecursionError as error:
        raise UserError(
            f'{file}: the JSON is nested too deep; export it again.'
        ) from error
    except ValueError as error:  # Python reads no number of more than 4300 digits
        raise UserError(
            f'{file}: the JSON has a number of thousands of digits; export it again.'
        ) from error


def _table(file: str, content: dict, key: str) -> list:
    table = content.get(key)
    if not isinstance(table, list):
        raise UserError(
            f'{file}: the list {key!r} is missing; COCO with videos has videos, images '
            'with video_id and frame_id, annotations and categories.'
        )
    return table


def _entries(file: str, tables: dict, key: str) -> Iterator[tuple[str, dict]]:
    for index, entry in enumerate(tables[key]):
        place = f'{key}[{index}]'
        if not isinstance(entry, dict):
            raise fault_at(file, place, 'this is no JSON object; correct it.')
        yield place, entry


def _get(file: str, place: str, entry: dict, *keys: str) -> object:
    key = next((key for key in keys if entry.get(key) not in (None, '')), None)
    if key is None:
        raise fault_at(file, place, f'{" or ".join(keys)} is missing; add it.')
    if isinstance(entry[key], list | dict):
        raise fault_at(
            file,
            place,
            f'{key} is {reprlib.repr(entry[key])}, neither number nor text; correct it.',
        )
    return entry[key]


def _add(file: str, place: str, table: dict, key: object, value: object) -> None:
    if key in table:
        raise fault_at(
            file, place, f'the id {reprlib.repr(key)} is there twice; correct one.'
        )
    table[key] = value


def _known_id(file: str, place: str, entry: dict, key: str, known: dict) -> object:
    given = _get(file, place, entry, key)
    if given not in known:
        ids = ', '.join(map(reprlib.repr, list(known)[:5])) or 'none'
        more = ', ...' if len(known) > 5 else ''
        raise fault_at(
            file,
            place,
            f'the {key} {reprlib.repr(given)} is none of those in the file '
            f'({ids}{more}); correct it or add what it names.',
        )
    return given


def _names(groups: Iterable[Iterable[str]]) -> list[str]:
    """Each name of the groups once, in the order in which they come."""
    return list(dict.fromkeys(name for group in groups for name in group))


def _attributes(file: str, place: str, entry: dict) -> dict:
    given = entry.get('attributes') or {}
    if not isinstance(given, dict):
        raise fault_at(
            file,
            place,
            f'the attributes {reprlib.repr(given)} are no JSON object; write them as '
            '{"wave": true, "pose": "stand"}.',
        )
    return given


def _is_ignored(entry: dict) -> bool:
    return is_true(entry.get('iscrowd')) or is_true(entry.get('ignore'))


def _track_id(entry: dict, attributes: dict) -> object:
    """A negative id means that there is none."""
    given = (
        entry.get('track_id'),
        entry.get('instance_id'),
        attributes.get('track_id'),
    )
    return next(
        (
            one
            for one in given
            if isinstance(one, int | str) and not (read_number(one) or 0) < 0
        ),
        None,
    )


def _coco_actions(
    attributes: dict, wanted: Collection[str] | None
) -> dict[str, list[str]]:
    """Actions by attribute, of those that may hold any."""
    actions: dict[str, list[str]] = {}
    for name, value in attributes.items():
        if name not in wanted if wanted is not None else name in TOOL_ATTRIBUTES:
            continue
        values = value if isinstance(value, list) else [value]
        texts = [
            str(is_true(one))
            if isinstance(one, bool) or (wanted is not None and one in (0, 1))
            else one
            for one in values
        ]
        texts = [one for one in texts if isinstance(one, str)]
        if texts or value == []:
            named = (action_of(name, text) for text in texts)
            actions[name] = [action for action in named if action is not None]
    return actions


def _coco_bbox(file: str, place: str, entry: dict) -> tuple:
    bbox = entry.get('bbox')
    numbers = [read_number(v) for v in bbox] if isinstance(bbox, list) else []
    if len(numbers) != 4 or None in numbers or min(numbers[2:]) < 0:
        raise fault_at(
            file,
            place,
            f'the bbox {reprlib.repr(bbox)} is not [x, y, width, height]; correct it.',
        )
    x, y, width, height = numbers
    return x, y, x + width, y + height
