"""JSON as COCO's, with videos."""

import json
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from .records import (
    NO_ACTION,
    TOOL_ATTRIBUTES,
    AnnotatedVideo,
    Annotations,
    Shape,
    fault_at,
    read_number,
    read_whole,
    video_names,
)


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
    labels = {
        _get(file, place, entry, 'id'): str(_get(file, place, entry, 'name')).strip()
        for place, entry in _entries(file, tables, 'categories')
    }
    videos: dict[object, AnnotatedVideo] = {}
    for place, entry in _entries(file, tables, 'videos'):
        name = str(_get(file, place, entry, 'name', 'file_name'))
        size = tuple(read_number(entry.get(key)) for key in ('width', 'height'))
        fps = read_number(entry.get('fps'))
        _add(
            file,
            place,
            videos,
            _get(file, place, entry, 'id'),
            AnnotatedVideo(
                file=file,
                names=video_names(name, Path(name).name),
                size=size if all(value and value > 0 for value in size) else None,
                fps=fps if fps and fps > 0 else None,
            ),
        )
    images: dict[object, tuple[object, int]] = {}  # id -> video id, frame
    frames: dict[object, set[int]] = {key: set() for key in videos}
    for place, entry in _entries(file, tables, 'images'):
        video_id = _get(file, place, entry, 'video_id')
        if video_id not in videos:
            raise fault_at(
                file, place, f'the video_id {video_id!r} is not among the videos.'
            )
        number = read_whole(_get(file, place, entry, 'frame_id', 'frame_index'))
        if number is None or number < first_frame:
            raise fault_at(
                file,
                place,
                f'the frame {number!r} is no whole number from {first_frame} upwards; '
                'correct it, or say which number the first frame has.',
            )
        frame = number - first_frame
        if frame in frames[video_id]:
            raise fault_at(file, place, f'frame {number} of its video is there twice.')
        frames[video_id].add(frame)
        _add(file, place, images, _get(file, place, entry, 'id'), (video_id, frame))
        video = videos[video_id]
        size = tuple(read_number(entry.get(key)) for key in ('width', 'height'))
        if video.size is None and all(value and value > 0 for value in size):
            video.size = size
    for key, video in videos.items():
        video.frames = sorted(frames[key])

    annotations = [
        (place, entry, _label(file, place, entry, labels))
        for place, entry in _entries(file, tables, 'annotations')
    ]
    attributes = [name for _, entry, _ in annotations for name in _attributes(entry)]
    if persons is not None:
        annotations = [one for one in annotations if one[2] in persons]
    given = [_coco_actions(entry, wanted) for _, entry, _ in annotations]
    has_actions = {
        label
        for (_, _, label), named in zip(annotations, given, strict=True)
        if named is not None
    }
    passed_over: Counter = Counter()
    tracks: dict[tuple, dict[int, Shape]] = {}
    for index, (place, entry, label) in enumerate(annotations):
        image_id = _get(file, place, entry, 'image_id')
        if image_id not in images:
            raise fault_at(
                file, place, f'the image_id {image_id!r} is not among the images.'
            )
        if has_actions and label not in has_actions:
            passed_over[label] += 1
            continue
        video_id, frame = images[image_id]
        actions = (given[index] or ()) if has_actions else (label,)
        shape = Shape(frame, _coco_bbox(file, place, entry), actions, False, place)
        track_id = _track_id(entry)
        track = (video_id, 'box', index) if track_id is None else (video_id, track_id)
        earlier = tracks.setdefault(track, {}).get(frame)
        if earlier is not None and earlier.bbox != shape.bbox:
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
    if has_actions:
        names = sorted({name for named in given for name in named or ()})
    else:
        names = [n for n in labels.values() if persons is None or n in persons]
    return Annotations(
        videos=list(videos.values()),
        actions=list(dict.fromkeys(names)),
        labels=list(labels.values()),
        attributes=list(dict.fromkeys(attributes)),
        labels_are_actions=not has_actions,
        passed_over=passed_over,
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


def _table(file: str, content: dict, key: str) -> list:
    table = content.get(key)
    if not isinstance(table, list):
        raise ValueError(
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
    value = next((entry[key] for key in keys if entry.get(key) is not None), None)
    if value is None or isinstance(value, list | dict):
        raise fault_at(file, place, f'{" or ".join(keys)} is missing; add it.')
    return value


def _add(file: str, place: str, table: dict, key: object, value: object) -> None:
    if key in table:
        raise fault_at(file, place, f'the id {key!r} is there twice; correct one.')
    table[key] = value


def _label(file: str, place: str, entry: dict, labels: dict) -> str:
    category = _get(file, place, entry, 'category_id')
    if category not in labels:
        raise fault_at(
            file, place, f'the category_id {category!r} is not among the categories.'
        )
    return labels[category]


def _attributes(entry: dict) -> dict:
    attributes = entry.get('attributes')
    return attributes if isinstance(attributes, dict) else {}


def _track_id(entry: dict) -> object:
    given = [entry.get('track_id'), entry.get('instance_id')]
    given.append(_attributes(entry).get('track_id'))
    return next((one for one in given if isinstance(one, int | str)), None)


def _coco_actions(
    entry: dict, wanted: Collection[str] | None
) -> tuple[str, ...] | None:
    """Actions of an annotation; None where it has no attribute that may hold any."""
    actions, found = [], False
    for name, value in _attributes(entry).items():
        if name not in wanted if wanted is not None else name in TOOL_ATTRIBUTES:
            continue
        values = value if isinstance(value, list) else [value]
        for one in values:
            if isinstance(one, bool) or (wanted is not None and one in (0, 1)):
                found = True
                actions += [name] * bool(one)
            elif isinstance(one, str):
                found = True
                actions += [one.strip()] * (one.strip().lower() not in NO_ACTION)
        found = found or value == []
    return tuple(dict.fromkeys(actions)) if found else None


def _coco_bbox(file: str, place: str, entry: dict) -> tuple:
    bbox = entry.get('bbox')
    numbers = [read_number(v) for v in bbox] if isinstance(bbox, list) else []
    if len(numbers) != 4 or None in numbers or min(numbers[2:]) < 0:
        raise fault_at(
            file, place, f'the bbox {bbox!r} is not [x, y, width, height]; correct it.'
        )
    x, y, width, height = numbers
    return x, y, x + width, y + height
