"""JSON as COCO's, with videos."""

import json
import reprlib
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from stmixer_mm.datasets.converters.records import (
    TOOL_ATTRIBUTES,
    AnnotatedVideo,
    Annotations,
    Shape,
    action_of,
    is_frame_rate,
    is_true,
    read_frame,
    read_number,
    read_size,
    unique,
    video_names,
)
from stmixer_mm.errors import UserError, blame

_LISTS = ('categories', 'videos', 'images', 'annotations')


class _Box(NamedTuple):
    """An annotation; its shape has no actions yet."""

    video_id: object
    label: str
    track_id: object  # None: of no track
    shape: Shape
    actions: dict[str, list[str]]  # by attribute, of those that may hold any


class CocoReader:
    """Collects what a COCO file holds, list by list."""

    def __init__(
        self,
        file: str,
        persons: Collection[str] | None,
        wanted: Collection[str] | None,
        first_frame: int,
    ) -> None:
        self.file = file
        self.persons = persons
        self.wanted = wanted
        self.first_frame = first_frame
        self.labels: dict[object, str] = {}
        self.videos: dict[object, AnnotatedVideo] = {}
        self.frames: dict[object, dict[int, str]] = {}  # places by frame by video
        self.images: dict[object, tuple[object, int]] = {}  # video id and frame
        self.boxes: list[_Box] = []
        self.ignored: list[tuple[object, int]] = []  # their images
        self.attributes: dict[str, None] = {}  # names, of persons

    def read(self, data: bytes) -> Annotations:
        with blame(f'{self.file}: the JSON', 'export it again'):
            content = json.loads(data)
        for name in _LISTS:
            if not isinstance(content.get(name), list):
                raise UserError(
                    f'{self.file}: the list {name!r} is missing; COCO with videos has '
                    'videos, images with video_id and frame_id, annotations and '
                    'categories.'
                )
        adders = (self._add_label, self._add_video, self._add_image, self._add_box)
        for name, add in zip(_LISTS, adders, strict=True):
            self._each(name, content[name], add)
        return self._annotations()

    def _each(self, name: str, entries: list, add: Callable[[dict, str], None]) -> None:
        for index, entry in enumerate(entries):
            place = f'{self.file}, {name}[{index}]'
            with blame(place, 'correct it'):
                if not isinstance(entry, dict):
                    raise ValueError('it is not a JSON object')
                add(entry, place)

    def _add_label(self, entry: dict, place: str) -> None:
        key, name = _get(entry, 'id'), str(_get(entry, 'name')).strip()
        if self.labels.get(key) != name:  # files that were merged have some twice
            _add(self.labels, key, name)

    def _add_video(self, entry: dict, place: str) -> None:
        name = str(_get(entry, 'name', 'file_name'))
        fps = read_number(entry.get('fps'))
        video = AnnotatedVideo(
            file=self.file,
            names=video_names(name, Path(name).name),
            size=read_size(entry),
            fps=fps if fps and is_frame_rate(fps) else None,
        )
        _add(self.videos, _get(entry, 'id'), video)

    def _add_image(self, entry: dict, place: str) -> None:
        video_id = _known(entry, 'video_id', self.videos)
        frame = read_frame(
            _get(entry, 'frame_id', 'frame_index'), first=self.first_frame
        )
        frame -= self.first_frame
        _add(self.images, _get(entry, 'id'), (video_id, frame))
        earlier = self.frames.setdefault(video_id, {}).setdefault(frame, place)
        if earlier != place:
            raise ValueError(f'it is the same frame of the same video as {earlier}')
        video = self.videos[video_id]
        video.size = video.size or read_size(entry)

    def _add_box(self, entry: dict, place: str) -> None:
        label = self.labels[_known(entry, 'category_id', self.labels)]
        if self.persons is not None and label not in self.persons:
            return
        video_id, frame = self.images[_known(entry, 'image_id', self.images)]
        attributes = entry.get('attributes') or {}
        if not isinstance(attributes, dict):
            raise ValueError(
                f'the attributes {reprlib.repr(attributes)} are not a JSON object as '
                '{"wave": true, "pose": "stand"}'
            )
        self.attributes |= dict.fromkeys(attributes)
        if is_true(entry.get('iscrowd')) or is_true(entry.get('ignore')):
            self.ignored.append((video_id, frame))
            return
        bbox = entry.get('bbox')
        numbers = (
            [read_number(value) for value in bbox] if isinstance(bbox, list) else []
        )
        if len(numbers) != 4 or None in numbers or min(numbers[2:]) < 0:
            raise ValueError(
                f'the bbox {reprlib.repr(bbox)} is not [x, y, width, height]'
            )
        x, y, width, height = numbers
        shape = Shape(
            frame=frame,
            bbox=(x, y, x + width, y + height),
            actions=(),
            outside=False,
            place=place,
            # Other tools' attributes of this name may be something else.
            rotation=read_number(attributes.get('rotation')) or 0,
        )
        actions = _actions(attributes, self.wanted)
        track_id = _track_id(entry, attributes)
        self.boxes.append(_Box(video_id, label, track_id, shape, actions))

    def _annotations(self) -> Annotations:
        acting = {box.label for box in self.boxes if box.actions}
        passed_over: Counter = Counter()
        tracks: dict[tuple, dict[int, Shape]] = {}
        for index, (video_id, label, track_id, shape, by_attribute) in enumerate(
            self.boxes
        ):
            if acting and label not in acting:
                passed_over[label] += 1
                continue
            named = [one for actions in by_attribute.values() for one in actions]
            key = (video_id, 'box', index) if track_id is None else (video_id, track_id)
            track = tracks.setdefault(key, {})
            earlier = track.get(shape.frame, shape)
            if earlier.enclosing_bbox() != shape.enclosing_bbox():
                raise UserError(
                    f'{shape.place}: track {track_id} has another box in this frame in '
                    f'{earlier.place}; correct the track id of one.'
                )
            # There may be an entry for each action.
            actions = unique([*earlier.actions, *(named if acting else [label])])
            track[shape.frame] = shape._replace(actions=tuple(actions))
        for (video_id, *_), shapes in tracks.items():
            self.videos[video_id].tracks.append([shapes[k] for k in sorted(shapes)])
        # Where persons are ignored and nobody else is seen, it is not without persons.
        seen = {(key[0], frame) for key, shapes in tracks.items() for frame in shapes}
        unclear = set(self.ignored) - seen
        for key, video in self.videos.items():
            frames = sorted(self.frames.get(key, ()))
            video.frames = [frame for frame in frames if (key, frame) not in unclear]
        if acting:
            given = [one for box in self.boxes for one in box.actions.values()]
            actions = sorted({action for one in given for action in one})
        else:
            actions = unique(
                name
                for name in self.labels.values()
                if self.persons is None or name in self.persons
            )
        read = {name for box in self.boxes for name in box.actions}
        return Annotations(
            videos=list(self.videos.values()),
            actions=actions,
            labels=list(self.labels.values()),
            attributes=list(self.attributes),
            labels_are_actions=not acting,
            passed_over=passed_over,
            other_attributes=[name for name in self.attributes if name not in read],
            num_ignored=len(self.ignored),
        )


def _get(entry: dict, *keys: str) -> object:
    """The first of the keys that an entry has."""
    found = (entry[key] for key in keys if entry.get(key) not in (None, ''))
    value = next(found, None)
    if value is None:
        raise ValueError(f'{" or ".join(keys)} is missing')
    return value


def _add(table: dict, key: object, value: object) -> None:
    if key in table:
        raise ValueError(f'the id {reprlib.repr(key)} is there twice')
    table[key] = value


def _known(entry: dict, key: str, table: dict) -> object:
    """The id that an entry has under a key, which must be in the table."""
    given = _get(entry, key)
    if given not in table:
        ids = ', '.join(map(reprlib.repr, list(table)[:5])) or 'none'
        more = ', ...' if len(table) > 5 else ''
        raise ValueError(
            f'the {key} {reprlib.repr(given)} is not among those in the file, {ids}{more}'
        )
    return given


def _track_id(entry: dict, attributes: dict) -> object:
    """None if there is none, which a negative id means, too."""
    given = entry.get('track_id'), entry.get('instance_id'), attributes.get('track_id')
    return next(
        (
            one
            for one in given
            if isinstance(one, int | str) and not (read_number(one) or 0) < 0
        ),
        None,
    )


def _actions(attributes: dict, wanted: Collection[str] | None) -> dict[str, list[str]]:
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
            actions[name] = [a for text in texts if (a := action_of(name, text))]
    return actions
