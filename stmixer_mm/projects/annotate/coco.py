"""COCO's JSON with videos."""

import json
import reprlib
from collections import Counter
from pathlib import Path

from stmixer_mm.errors import ErrorCollector, UserError, blame
from stmixer_mm.files import write_json
from stmixer_mm.projects.annotate.records import (
    PERSON,
    AnnotatedVideo,
    Annotations,
    Shape,
    action_names,
    detected_frames,
    detected_tracks,
    is_true,
    read_frame,
    read_size,
    upright,
)
from stmixer_mm.registry import result_format
from stmixer_mm.structures import VideoDetections

_FROM_ONE = (
    'videos have 1 as their first frame; frames are counted from 0: subtract 1 from each '
    'frame_id if your tool counts from 1.'
)


def read_coco(file: str, data: bytes, notes: Counter) -> Annotations:
    """Read a JSON file."""
    reader = CocoReader(file, notes)
    adders = dict(  # in the order of their references
        categories=reader.add_label,
        videos=reader.add_video,
        images=reader.add_image,
        annotations=reader.add_box,
    )
    with blame(f'{file}: the JSON', 'export it again'):
        content = json.loads(data)
        if 'images' in content and 'videos' not in content:
            raise UserError(
                f'{file}: the JSON has no "videos", as CVAT\'s "COCO 1.0"; export "CVAT '
                'for video 1.1", or add them, see COCO JSON in docs/own_data.md.'
            )
        lists = {name: list(content[name]) for name in adders}
    for name, entries in lists.items():
        with ErrorCollector() as errors:  # a list refers to those before
            for index, entry in enumerate(entries):
                place = f'{file}, {name}[{index}]'
                subject = f'{place}: {reprlib.repr(entry):.120}'
                remedy = 'see COCO JSON in docs/own_data.md'
                with errors.collect(), blame(subject, remedy):
                    adders[name](entry, place)
    for (key, *_), track in reader.tracks.items():
        reader.videos[key].tracks.append(track)
    for video in reader.videos.values():
        video.frames.sort()
        notes[_FROM_ONE] += video.frames[:1] == [1]
    return Annotations(
        videos=[*reader.videos.values()], labels=[*reader.labels.values()]
    )


class CocoReader:
    """Tables of a COCO file by id, filled entry by entry."""

    def __init__(self, file: str, notes: Counter) -> None:
        self.file, self.notes = file, notes
        self.labels: dict[object, str] = {}
        self.videos: dict[object, AnnotatedVideo] = {}
        self.frames: set[tuple[object, int]] = set()  # video id and frame
        self.images: dict[object, tuple[object, int]] = {}  # video id and frame
        self.tracks: dict[tuple, list[Shape]] = {}  # by ids of the video and the track

    def add_label(self, entry: dict, place: str) -> None:
        key, name = entry['id'], str(entry['name']).strip()
        if self.labels.setdefault(key, name) != name:
            raise ValueError('its id is that of another category')

    def add_video(self, entry: dict, place: str) -> None:
        name = str(entry.get('name') or entry['file_name'])
        if entry['id'] in self.videos:
            raise ValueError('its id is that of another video')
        self.videos[entry['id']] = AnnotatedVideo(
            file=self.file,
            names=[name, Path(name).name],
            size=read_size(entry.get('width'), entry.get('height')),
            frames=[],
        )

    def add_image(self, entry: dict, place: str) -> None:
        key = entry['video_id']
        number = entry['frame_id'] if 'frame_id' in entry else entry['frame_index']
        video, frame = self.videos[key], read_frame(number)
        if entry['id'] in self.images or (key, frame) in self.frames:
            raise ValueError('its id or its frame is that of another image')
        self.images[entry['id']] = key, frame
        self.frames.add((key, frame))
        video.frames.append(frame)
        video.size = video.size or read_size(entry.get('width'), entry.get('height'))

    def add_box(self, entry: dict, place: str) -> None:
        label = self.labels[entry['category_id']]
        key, frame = self.images[entry['image_id']]
        if is_true(entry.get('iscrowd')) or is_true(entry.get('ignore')):
            self.notes[
                'boxes were left out: they are of crowds, or to be ignored.'
            ] += 1
            self.videos[key].unclear.append(frame)
            return
        attributes = dict(entry.get('attributes') or {})
        x, y, width, height = map(float, entry['bbox'])
        rotation = attributes.get('rotation')
        is_angle = isinstance(rotation, int | float)
        shape = Shape(
            frame=frame,
            bbox=upright(x, y, x + width, y + height, rotation if is_angle else 0),
            segmentation=entry.get('segmentation'),
            label=label,
            attributes=attributes,
            place=place,
        )
        candidates = (
            entry.get('track_id'),
            entry.get('instance_id'),
            attributes.get('track_id'),
        )
        track_id = next(
            (candidate for candidate in candidates if candidate not in (None, -1)), None
        )
        track = (key, place, None) if track_id is None else (key, track_id)
        self.tracks.setdefault(track, []).append(shape)


@result_format('coco')
def write_coco(detections: VideoDetections, path: Path) -> None:
    """Write detections: an image for each analysed frame.

    Each action is an attribute, true or false.
    """
    actions, annotations = action_names(detections), []
    for number, track in enumerate(detected_tracks(detections)):
        for shape in track:
            if shape.outside:
                continue
            x1, y1, x2, y2 = shape.bbox
            annotation = dict(
                id=len(annotations) + 1,
                image_id=shape.frame,
                category_id=1,
                track_id=number,
                bbox=[round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                attributes={action: action in shape.actions for action in actions},
            )
            if shape.segmentation:
                annotation['segmentation'] = shape.segmentation
            annotations.append(annotation)
    size = dict(width=detections.width, height=detections.height)
    frames = sorted({*detected_frames(detections)})
    content = dict(
        videos=[
            dict(id=1, name=Path(detections.source).name, fps=detections.fps, **size)
        ],
        images=[dict(id=n, video_id=1, frame_id=n, **size) for n in frames],
        annotations=annotations,
        categories=[dict(id=1, name=PERSON)],
    )
    write_json(path, content)
