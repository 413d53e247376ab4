"""JSON as COCO's, with videos."""

import json
import reprlib
from collections.abc import Callable, Collection
from pathlib import Path

from stmixer_mm.datasets.converters.actions import (
    TOOL_ATTRIBUTES,
    action_of,
    is_true,
)
from stmixer_mm.datasets.converters.records import (
    AnnotatedVideo,
    Annotations,
    Shape,
    is_frame_rate,
    read_frame,
    read_number,
    read_size,
    video_names,
)
from stmixer_mm.errors import UserError, blame

_LISTS = ('categories', 'videos', 'images', 'annotations')


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
        self.tracks: dict[tuple, list[Shape]] = {}  # by ids of the video and the track
        self.attributes: dict[tuple[str, str], None] = {}  # labels and names
        self.num_ignored = 0

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
        for key, video in self.videos.items():
            video.frames = sorted(self.frames.get(key, ()))
        for (video_id, *_), track in self.tracks.items():
            self.videos[video_id].tracks.append(track)
        return Annotations(
            videos=list(self.videos.values()),
            labels=list(self.labels.values()),
            attributes=list(self.attributes),
            num_ignored=self.num_ignored,
        )

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
        self.attributes |= dict.fromkeys((label, name) for name in attributes)
        if is_true(entry.get('iscrowd')) or is_true(entry.get('ignore')):
            self.num_ignored += 1
            self.videos[video_id].unclear.add(frame)
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
            label=label,
            given=_actions(attributes, self.wanted),
        )
        track_id = _track_id(entry, attributes)
        key = (video_id, 'alone', place) if track_id is None else (video_id, track_id)
        self.tracks.setdefault(key, []).append(shape)


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
