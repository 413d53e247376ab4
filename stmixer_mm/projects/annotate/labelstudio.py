"""Label Studio's JSON of videos: boxes of ``VideoRectangle``, choices for each of them.

Frames count from 1 there, boxes are x, y, width and height in percent, and a keyframe
that is not ``enabled`` is the last one that its box is seen in. A region whose
``parentID`` is another one is of the same person: choices hold for a whole region, so a
person has one for each stretch of time with the same actions.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from stmixer_mm.errors import ErrorCollector, UserError, blame
from stmixer_mm.files import write_json
from stmixer_mm.projects.annotate.records import (
    PERSON,
    AnnotatedVideo,
    Annotations,
    Bbox,
    Shape,
    detected_tracks,
    leave_later,
    read_frame,
    read_size,
    shape_at,
    unique,
    upright,
)
from stmixer_mm.registry import result_format
from stmixer_mm.structures import VideoDetections

_REMEDY = 'export "JSON" (not "JSON-MIN") of tasks with videos'
BOX, ACTION, VIDEO = 'box', 'action', 'video'  # names of tags that are written


def read_labelstudio(file: str, data: bytes, notes: Counter) -> Annotations:
    """Read an export in the format "JSON"; each task is a video."""
    videos: dict[str, AnnotatedVideo] = {}
    with blame(f'{file}: the JSON', _REMEDY):
        tasks = list(json.loads(data))
    with ErrorCollector() as errors:
        for index, task in enumerate(tasks):
            place = f'{file}, [{index}]'
            with errors.collect(), blame(place, _REMEDY):
                results = _results(task, place, notes)
                if results is None:
                    continue
                video = _read_task(file, place, task['data'], results, notes)
                if video.names[0] in videos:
                    raise UserError(
                        f'{place}: an earlier task is of the video {video.names[0]}, '
                        'too; delete one of them.'
                    )
                videos[video.names[0]] = video
    annotations = Annotations(videos=[*videos.values()], labels=[])
    labels = (shape.label for track in annotations.tracks for shape in track)
    annotations.labels = unique(labels)
    return annotations


def _results(task: Mapping, place: str, notes: Counter) -> list[dict] | None:
    """Regions and choices of a task; None if nobody has annotated it."""
    annotations = [
        annotation
        for annotation in task['annotations']
        if not annotation.get('was_cancelled')
    ]
    if len(annotations) > 1:
        raise UserError(
            f'{place}: the task has {len(annotations)} annotations; delete all but one.'
        )
    if not annotations:
        notes['tasks without an annotation were left out.'] += 1
        return None
    return annotations[0]['result']


def _read_task(
    file: str, place: str, data: Mapping, results: Sequence[Mapping], notes: Counter
) -> AnnotatedVideo:
    regions = {
        entry['id']: entry for entry in results if entry['type'] == 'videorectangle'
    }
    labels, choices = _read_choices(regions, results, notes)
    size = read_size(data.get('width'), data.get('height'))
    persons: dict[str, list[Shape]] = defaultdict(list)
    total_frames = 0
    with ErrorCollector() as errors:
        for key, region in regions.items():
            name = f'{place}, region {key}'
            with errors.collect(), blame(name, 'correct it'):
                count = _count_frames(region['value'], name)
                total_frames = max(total_frames, count)
                person = persons[_first_region(key, regions)]
                for shape in _read_sequence(region['value'], count, size, name):
                    person += [
                        shape._replace(label=label, attributes=choices[key])
                        for label in unique(labels[key]) or [PERSON]
                    ]
    return AnnotatedVideo(
        file=file,
        names=_names(data),
        size=size,
        frames=range(total_frames) if total_frames else None,
        total_frames=total_frames or None,
        tracks=[leave_later(shapes) for shapes in persons.values()],
        interpolate=True,
        in_percent=True,
    )


def _read_choices(
    regions: Mapping[str, Mapping], results: Sequence[Mapping], notes: Counter
) -> tuple[dict[str, list[str]], dict[str, dict[str, list[str]]]]:
    """Labels by region; choices by region and by the name of their tag."""
    labels: dict[str, list[str]] = defaultdict(list)
    choices: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for entry in results:
        key, kind, value = entry.get('id'), entry['type'], entry.get('value', {})
        if key not in regions or kind not in ('videorectangle', 'labels', 'choices'):
            notes['results other than boxes and their choices were left out.'] += 1
            continue
        labels[key] += value.get('labels', ())
        if kind == 'choices':
            choices[key][entry['from_name']] = list(value['choices'])
    return labels, choices


def _names(data: Mapping) -> list[str]:
    """Names that the file of a task's video may have, the likeliest first."""
    texts = [data.get(VIDEO), *data.values()]
    address = next(text for text in texts if isinstance(text, str) and '.' in text)
    name = address
    if '/' in address:  # such as https://host/a.mp4?key=b, /data/local-files/?d=a.mp4
        parts = urlsplit(address)
        path = parse_qs(parts.query).get('d', [unquote(parts.path)])[0]
        name = PurePosixPath(path).name
    # An uploaded file gets eight digits before its name.
    uploaded_name = re.sub(r'^[0-9a-f]{8}-', '', name)
    return unique([uploaded_name, name] if '/upload/' in address else [name])


def _count_frames(value: Mapping, place: str) -> int:
    count = value.get('framesCount')
    if not count:
        raise UserError(
            f'{place}: the region has no framesCount; open the task in Label Studio, '
            'submit it again, and export it anew.'
        )
    return read_frame(count)


def _read_sequence(
    value: Mapping, count: int, size: tuple[int, int] | None, place: str
) -> Iterator[Shape]:
    """Shapes of a region, in percent; the last one is seen to the video's end."""
    keyframes = sorted(value['sequence'], key=lambda keyframe: keyframe['frame'])
    for keyframe in keyframes:
        where = f'{place}, frame {str(keyframe["frame"])[:20]}'
        with blame(where, 'correct it'):
            frame = read_frame(keyframe['frame'] - 1)  # from 0
            if frame >= count:
                raise UserError(
                    f'{where}: the region goes on after frame {count}, the last one of '
                    'the video (framesCount); correct either.'
                )
            shape = Shape(frame=frame, bbox=_read_bbox(keyframe, size), place=where)
        yield shape
        is_seen = keyframe.get('enabled', True)
        if not is_seen:
            yield shape._replace(outside=True)
        elif keyframe is keyframes[-1] and frame < count - 1:
            yield shape._replace(frame=count - 1)


def _read_bbox(keyframe: Mapping, size: tuple[int, int] | None) -> Bbox:
    """The box in percent; a rotated one turns around its upper left corner, in pixels."""
    x, y, width, height = (
        float(keyframe[name]) for name in ('x', 'y', 'width', 'height')
    )
    degrees = float(keyframe.get('rotation') or 0)
    if not degrees:
        return upright(x, y, x + width, y + height, 0)
    if size is None:
        raise ValueError(
            'its box is rotated, which needs width and height in the data of the task'
        )
    scale_x, scale_y = size[1] / 100, size[0] / 100
    width, height = width * scale_x, height * scale_y
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    x1 = x * scale_x + (width * cosine - height * sine - width) / 2
    y1 = y * scale_y + (width * sine + height * cosine - height) / 2
    x1, y1, x2, y2 = upright(x1, y1, x1 + width, y1 + height, degrees)
    return x1 / scale_x, y1 / scale_y, x2 / scale_x, y2 / scale_y


def _first_region(key: str, regions: Mapping[str, Mapping]) -> str:
    """The first ancestor of a region, which has no parent."""
    ancestors = [key]
    while (parent := regions[ancestors[-1]].get('parentID')) in regions:
        if parent in ancestors:
            raise ValueError('it is its own ancestor')
        ancestors.append(parent)
    return ancestors[-1]


@result_format('labelstudio')
def write_labelstudio(detections: VideoDetections, path: Path) -> None:
    """Write a task with predictions, to be imported into a project.

    Its labeling interface has ``VideoRectangle`` "box", ``Choices`` "action" with
    ``perRegion`` and ``Labels`` with "person" for the ``Video`` "video".
    """
    results = [
        result
        for number, track in enumerate(detected_tracks(detections))
        for result in _write_track(track, f'person{number}', detections)
    ]
    size = dict(width=detections.width, height=detections.height)
    data = {VIDEO: Path(detections.source).name, 'fps': detections.fps, **size}
    prediction = dict(model_version='stmixer_mm', result=results)
    write_json(path, [dict(data=data, predictions=[prediction])])


def _write_track(
    track: Sequence[Shape], name: str, detections: VideoDetections
) -> Iterator[dict]:
    """A region for each stretch of equal actions, and its choices."""
    for number, shapes in enumerate(_split(track)):
        value = dict(
            framesCount=detections.total_frames,
            duration=detections.total_frames / (detections.fps or 1),
            sequence=[_write_keyframe(shape, detections) for shape in shapes],
        )
        region = dict(id=f'{name}_{number}', to_name=VIDEO)
        if number:
            region |= dict(parentID=f'{name}_0')
        yield region | dict(
            from_name=BOX, type='videorectangle', value=value | dict(labels=[PERSON])
        )
        if shapes[0].actions:
            choices = value | dict(choices=[*shapes[0].actions])
            yield region | dict(from_name=ACTION, type='choices', value=choices)


def _split(track: Sequence[Shape]) -> list[list[Shape]]:
    """Keyframes by region; outside: the last ones before the person is not seen."""
    regions: list[list[Shape]] = []
    for shape, next_shape in pairwise([*track, None]):
        if shape.outside:
            continue
        if not regions or {*regions[-1][0].actions} != {*shape.actions}:
            regions.append([])
        regions[-1].append(shape)
        if next_shape and (
            next_shape.outside or {*next_shape.actions} != {*shape.actions}
        ):
            last_shape = shape_at(track, next_shape.frame - 1, interpolate=True)
            if last_shape.frame == shape.frame:
                regions[-1].pop()
            regions[-1].append(last_shape._replace(outside=True))
    return regions


def _write_keyframe(shape: Shape, detections: VideoDetections) -> dict:
    x1, y1, x2, y2 = shape.bbox
    frame = shape.frame + 1
    return dict(
        frame=frame,
        time=frame / (detections.fps or 1),
        enabled=not shape.outside,
        rotation=0,
        x=100 * x1 / detections.width,
        y=100 * y1 / detections.height,
        width=100 * (x2 - x1) / detections.width,
        height=100 * (y2 - y1) / detections.height,
    )
