"""Reading COCO's JSON with videos."""

import json
import math
import reprlib
from dataclasses import dataclass, field
from pathlib import Path

from stmixer_mm.errors import UserError, blame
from stmixer_mm.projects.annotate.records import (
    AnnotatedVideo,
    Annotations,
    Shape,
    is_frame_rate,
    is_true,
    read_frame,
    read_number,
    read_size,
    video_names,
)

# The content of each list.
_LISTS = {
    'categories': 'an id of its own and a name',
    'videos': 'an id of its own and a name or file_name',
    'images': 'an id of its own, the video_id of a video and a frame_id or '
    'frame_index of its own',
    'annotations': 'the category_id of a category, the image_id of an image, a bbox [x, '
    'y, width, height] and attributes, if any, as an object',
}


@dataclass
class CocoReader:
    """Reads a COCO file, list by list."""

    file: str
    first_frame: int
    labels: dict[object, str] = field(default_factory=dict)
    videos: dict[object, AnnotatedVideo] = field(default_factory=dict)
    # Places by frame by video.
    frames: dict[object, dict[int, str]] = field(default_factory=dict)
    # Video id and frame.
    images: dict[object, tuple[object, int]] = field(default_factory=dict)
    # By ids of the video and the track.
    tracks: dict[tuple, list[Shape]] = field(default_factory=dict)

    def read(self, data: bytes) -> Annotations:
        with blame(f'{self.file}: the JSON', 'export it again'):
            content = json.loads(data)
        adders = (self._add_label, self._add_video, self._add_image, self._add_box)
        for (name, form), add in zip(_LISTS.items(), adders, strict=True):
            if not isinstance(content.get(name), list):
                raise UserError(
                    f'{self.file}: the list {name!r} is missing; COCO with videos has '
                    'videos, images with video_id and frame_id, annotations and '
                    'categories.'
                )
            for index, entry in enumerate(content[name]):
                place = f'{self.file}, {name}[{index}]'
                shown = f'{place}: {reprlib.repr(entry):.120}'
                with blame(f'{shown} must have {form}', 'correct it'):
                    add(entry, place)
        for key, video in self.videos.items():
            video.frames = sorted(self.frames.get(key, ()))
        for (video_id, *_), track in self.tracks.items():
            self.videos[video_id].tracks.append(track)
        return Annotations(
            videos=list(self.videos.values()), labels=list(self.labels.values())
        )

    def _add_label(self, entry: dict, place: str) -> None:
        key, name = entry['id'], _first(entry, 'name').strip()
        if self.labels.get(key) != name:  # files that were merged have some twice
            _add(self.labels, key, name)

    def _add_video(self, entry: dict, place: str) -> None:
        name, fps = _first(entry, 'name', 'file_name'), read_number(entry.get('fps'))
        video = AnnotatedVideo(
            file=self.file,
            names=video_names(name, Path(name).name),
            size=read_size(entry),
            fps=fps if fps and is_frame_rate(fps) else None,
        )
        _add(self.videos, entry['id'], video)

    def _add_image(self, entry: dict, place: str) -> None:
        video_id = entry['video_id']
        video = self.videos[video_id]
        number = _first(entry, 'frame_id', 'frame_index')
        frame = read_frame(number, first=self.first_frame) - self.first_frame
        _add(self.images, entry['id'], (video_id, frame))
        earlier = self.frames.setdefault(video_id, {}).setdefault(frame, place)
        if earlier != place:
            raise ValueError(f'it is the same frame of the same video as {earlier}')
        video.size = video.size or read_size(entry)

    def _add_box(self, entry: dict, place: str) -> None:
        label = self.labels[entry['category_id']]
        video_id, frame = self.images[entry['image_id']]
        if is_true(entry.get('iscrowd')) or is_true(entry.get('ignore')):
            self.videos[video_id].unclear.append(frame)
            return
        attributes = entry.get('attributes') or {}
        if not isinstance(attributes, dict):
            raise ValueError('its attributes are not as {"wave": true, "pose": "sit"}')
        x, y, width, height = map(float, entry['bbox'])
        if not math.isfinite(x + y + width + height) or min(width, height) < 0:
            raise ValueError('its bbox is not a box')
        shape = Shape(
            frame=frame,
            bbox=(x, y, x + width, y + height),
            outside=False,
            place=place,
            label=label,
            attributes=attributes,
            # Other tools' attributes of this name may be something else.
            rotation=read_number(attributes.get('rotation')) or 0,
            segmentation=entry.get('segmentation'),
        )
        track_id = _track_id(entry, attributes)
        key = (video_id, 'alone', place) if track_id is None else (video_id, track_id)
        self.tracks.setdefault(key, []).append(shape)


def _first(entry: dict, *keys: str) -> str:
    """The value of the first key that an entry has."""
    for key in keys:
        if entry.get(key) not in (None, ''):
            return str(entry[key])
    raise KeyError(keys[0])


def _add(table: dict, key: object, value: object) -> None:
    if key in table:
        raise ValueError(f'the id {reprlib.repr(key)} is there twice')
    table[key] = value


def _track_id(entry: dict, attributes: dict) -> object:
    """None if there is none, or a negative one."""
    given = entry.get('track_id'), entry.get('instance_id'), attributes.get('track_id')
    for track_id in given:
        if isinstance(track_id, int | str) and not (read_number(track_id) or 0) < 0:
            return track_id
    return None
