"""Records between the files of annotation tools and everything else."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

import cv2
import numpy as np

from stmixer_mm.pictures import check_frame_size
from stmixer_mm.projects.common.ava_writer import AnnotatedPerson
from stmixer_mm.structures import VideoDetections

PERSON = 'person'  # the label of detections
MAX_FRAME = 10_000_000  # four days at 30 frames per second

Bbox = tuple[float, float, float, float]  # pixel xyxy, may leave the frame
Keyframes = dict[tuple[str, float], list[AnnotatedPerson]]  # by video and second


class Shape(NamedTuple):
    """A person in a frame."""

    frame: int
    bbox: Bbox
    outside: bool = False  # True: from this frame on the person is not seen
    actions: tuple[str, ...] = ()
    segmentation: object = None  # COCO's, in this very frame
    label: str = ''
    attributes: Mapping[str, object] = MappingProxyType({})  # as written
    place: str = ''  # in the file, for messages


@dataclass(kw_only=True)
class AnnotatedVideo:
    """The annotation of one video in a file."""

    file: str
    names: list[str]  # that the video's file may have, the likeliest first
    size: tuple[int, int] | None = None  # (h, w) of the annotated frames
    frames: Sequence[int] | None = None  # annotated ones, rising; None: all there are
    total_frames: int | None = None  # of the whole video, as the tool counts them
    tracks: list[list[Shape]] = field(default_factory=list)
    interpolate: bool = False  # between the shapes of a track
    in_percent: bool = False  # boxes are in percent of the frame, not in pixels
    # Frames of boxes of crowds, or marked to be ignored.
    unclear: list[int] = field(default_factory=list)


@dataclass(kw_only=True)
class Annotations:
    """The content of a file."""

    videos: list[AnnotatedVideo]
    labels: list[str]  # of persons and things
    # Actions by label and attribute, where the file declares attributes; None: the
    # attribute names no action.
    declared: dict[tuple[str, str], list[str] | None] = field(default_factory=dict)

    @property
    def tracks(self) -> list[list[Shape]]:
        return [track for video in self.videos for track in video.tracks]


@dataclass(kw_only=True)
class Conversion:
    """The keyframes that were written, and notes of what was changed or left out."""

    files: list[str]
    keyframes: Keyframes
    names: Mapping[int, str] = field(default_factory=dict)  # of the actions, by id
    notes: Counter  # how many by sentence

    @property
    def persons(self) -> list[AnnotatedPerson]:
        return [person for people in self.keyframes.values() for person in people]

    @property
    def class_counts(self) -> Counter:
        ids = (number for person in self.persons for number in person.action_ids)
        return Counter(self.names[number] for number in ids if number in self.names)

    def __str__(self) -> str:
        counts = self.class_counts.items()
        width = max((len(name) for name, _ in counts), default=0)
        num_videos = len({video for video, _ in self.keyframes})
        num_empty = sum(not people for people in self.keyframes.values())
        num_masks = sum(person.mask is not None for person in self.persons)
        return '\n'.join(
            [
                f'videos: {num_videos}, keyframes: {len(self.keyframes)} '
                f'(person-free: {num_empty}), persons: {len(self.persons)}, '
                f'masks: {num_masks}',
                *(f'  {name:<{width}} {count:>8}' for name, count in counts),
                *(f'{count} {what}' for what, count in self.notes.items() if count),
                'written: ' + ', '.join(self.files),
            ]
        )


def unique(names: Iterable[str]) -> list[str]:
    """Each name once, in the order in which they come."""
    return list(dict.fromkeys(names))


def is_true(value: object) -> bool:
    return str(value).strip().lower() in ('1', 'true')


def read_frame(value: object) -> int:
    """The number of a frame; ``ValueError`` for anything else."""
    number = int(value)
    if not 0 <= number <= MAX_FRAME:
        raise ValueError(f'the frame {number} is not from 0 to {MAX_FRAME}')
    return number


def read_size(width: object, height: object) -> tuple[int, int] | None:
    """(h, w) in pixels; None unless both are there; ``ValueError`` for no video's."""
    if not (width and height):
        return None
    size = round(float(height)), round(float(width))
    check_frame_size(*size)
    return size


def upright(x1: float, y1: float, x2: float, y2: float, degrees: float = 0) -> Bbox:
    """The upright box around one that is rotated around its centre.

    Raises:
        ValueError: the corners are not an upper left and a lower right one.
    """
    if not (-math.inf < x1 <= x2 < math.inf and -math.inf < y1 <= y2 < math.inf):
        raise ValueError(f'{(x1, y1, x2, y2)} are not the corners of a box')
    if not degrees:
        return x1, y1, x2, y2
    center, size = ((x1 + x2) / 2, (y1 + y2) / 2), (x2 - x1, y2 - y1)
    corners = cv2.boxPoints((center, size, degrees))
    return (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())


def leave_later(shapes: Sequence[Shape]) -> list[Shape]:
    """A frame in which a person is both seen and outside is the last one seen."""
    visible_frames = {shape.frame for shape in shapes if not shape.outside}
    shifted_shapes = (
        shape._replace(frame=shape.frame + 1)
        if shape.outside and shape.frame in visible_frames
        else shape
        for shape in shapes
    )
    return [
        shape
        for shape in shifted_shapes
        if not (shape.outside and shape.frame in visible_frames)
    ]


def shape_at(track: Sequence[Shape], frame: int, *, interpolate: bool) -> Shape | None:
    """The person of a track in a frame, None where it is not seen.

    Args:
        track: Shapes by rising frame.
        frame: Its number.
        interpolate: Between two shapes the box moves in a straight line; it stays where
            it is if the person is not seen from the second on. The actions are those of
            the first. Else only frames with a shape count.
    """
    index = bisect_right(track, frame, key=lambda shape: shape.frame)
    if index == 0 or track[index - 1].outside:
        return None
    previous_shape = track[index - 1]
    if previous_shape.frame == frame:
        return previous_shape
    if not interpolate or index == len(track):
        return None
    next_shape = track[index]
    shape = previous_shape._replace(frame=frame, segmentation=None)
    if next_shape.outside:
        return shape
    share = (frame - previous_shape.frame) / (next_shape.frame - previous_shape.frame)
    start, end = np.array(previous_shape.bbox), np.array(next_shape.bbox)
    return shape._replace(bbox=tuple(start + share * (end - start)))


def action_names(detections: VideoDetections) -> list[str]:
    """The actions of a model, or if they are unknown those found."""
    persons = [
        person for keyframe in detections.keyframes for person in keyframe.persons
    ]
    names = {
        scored_action.action for person in persons for scored_action in person.actions
    }
    return list(detections.classes or sorted(names))


def detected_frames(detections: VideoDetections) -> list[int]:
    """The keyframes, without those predicted for after the video's end."""
    return [
        keyframe.frame_index
        for keyframe in detections.keyframes
        if keyframe.ahead_s is None or keyframe.frame_index < detections.total_frames
    ]


def detected_tracks(detections: VideoDetections) -> list[list[Shape]]:
    """Persons with ids as tracks, every other person as a track of its own.

    A person that is not found at the next keyframe is outside from there on.
    """
    frames = detected_frames(detections)
    leaves = dict(pairwise([*frames, frames[-1] + 1])) if frames else {}
    tracks: dict[object, list[Shape]] = {}
    for keyframe in detections.keyframes[: len(frames)]:
        for row, person in enumerate(keyframe.persons):
            shape = Shape(
                frame=keyframe.frame_index,
                bbox=person.bbox,
                actions=tuple(scored_action.action for scored_action in person.actions),
                segmentation=person.mask,
            )
            key = (shape.frame, row) if person.id is None else person.id
            track = tracks.setdefault(key, [])
            if track and track[-1].frame == shape.frame:
                track.pop()  # it is not outside yet
            outside_shape = shape._replace(frame=leaves[shape.frame], outside=True)
            track += [shape, outside_shape]
    for track in tracks.values():
        if track[-1].frame >= detections.total_frames:
            track.pop()
    return list(tracks.values())
