"""Conversion of annotation files to the csv files and the label map of a training."""

import codecs
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_masks

from stmixer_mm.command_line import Positive
from stmixer_mm.datasets.annotations.ava_csv import read_label_names
from stmixer_mm.datasets.annotations.label_map import format_label_map
from stmixer_mm.datasets.frames import (
    find_video,
    is_stretched,
    keyframe_index,
    without_suffix,
)
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.errors import ErrorCollector, UserError, blame, nearest
from stmixer_mm.files import check_file, check_writable_file, write_atomically
from stmixer_mm.pictures import Mask, decode, encode
from stmixer_mm.projects.annotate.actions import resolve_actions
from stmixer_mm.projects.annotate.coco import read_coco
from stmixer_mm.projects.annotate.cvat import read_cvat
from stmixer_mm.projects.annotate.labelstudio import read_labelstudio
from stmixer_mm.projects.annotate.records import (
    AnnotatedVideo,
    Annotations,
    Conversion,
    Keyframes,
    Shape,
    shape_at,
    unique,
)
from stmixer_mm.projects.common.ava_writer import (
    AnnotatedPerson,
    write_annotations,
)
from stmixer_mm.projects.common.masks import collect_masks, mask_file, write_masks


class VideoFacts(NamedTuple):
    """What is known of a video."""

    name: str
    clock: dict  # fps, total_frames and frame_times, as of keyframe_index
    size: tuple[int, int]  # (h, w) of the annotated frames


def convert_annotations(
    files: Sequence[str],
    *,
    out: str,
    videos: str,
    label_map: str | None = None,
    every: Positive = 1,
    fps: Positive | None = None,
    only: list[str] | None = None,
    attributes: list[str] | None = None,
    idle: str | None = None,
) -> Conversion:
    """Convert annotations of CVAT, Label Studio or COCO to the files that training reads.

    Takes "CVAT for video 1.1" (XML), Label Studio's JSON and COCO with videos (JSON).
    Writes OUT.csv, which is in AVA's format, OUT_empty.csv with the keyframes that show
    no person, the label map and, if persons have masks or polygons, OUT_masks.json.

    Args:
        files: CVAT XML, Label Studio JSON or COCO JSON files.
        out: The csv file to write; keyframes without persons go beside it.
        videos: Folder of the videos, whose frame rates count.
        label_map: Label map (pbtxt); its ids are taken if it exists, else it is
            written. By default action_list.pbtxt beside the csv file.
        every: Seconds from keyframe to keyframe, from 0 s on.
        fps: Frame rate of videos that are not in the folder (extracted frames).
        only: Videos to convert, by name, with or without suffix; by default all.
        attributes: Attributes that hold actions; by default all.
        idle: Action of persons that do nothing. Without it their keyframes are left out.

    Raises:
        UserError: naming the file and the place; of several faults the first, and all
            of them in ``errors``.
    """
    check_writable_file(out, purpose='--out', suffixes=('.csv',))
    label_map = Path(label_map or Path(out).with_name('action_list.pbtxt'))
    notes = Counter()
    annotated_files = _read_files(files, notes)
    actions = []
    for annotated_file in annotated_files:
        actions += resolve_actions(annotated_file, attributes, idle, notes)
    ids = _action_ids(unique(actions), label_map)
    annotated_videos = chain.from_iterable(file.videos for file in annotated_files)
    keyframes: Keyframes = {}
    sizes: dict[str, tuple[int, int]] = {}
    with ErrorCollector() as errors:
        for video in _choose([*annotated_videos], only):
            with errors.collect():
                facts = find_facts(video, videos, fps)
                sizes[facts.name] = facts.size
                people = _keyframes(video, facts, every, ids, notes)
                _add(keyframes, video, facts, people)
    if not any(keyframes.values()):
        raise UserError(
            f'{", ".join(files)} has no person with an action at a keyframe, one every '
            f'{every:g} s; see whether the actions are attributes.'
        )
    paths = _write(Path(out), label_map, keyframes, sizes, ids)
    names = {number: name for name, number in ids.items()}
    return Conversion(files=paths, keyframes=keyframes, names=names, notes=notes)


def _add(
    keyframes: Keyframes,
    video: AnnotatedVideo,
    facts: VideoFacts,
    video_keyframes: Iterable[tuple[float, list[AnnotatedPerson]]],
) -> None:
    for time, people in video_keyframes:
        if (facts.name, time) in keyframes:
            raise UserError(
                f'{video.file}: {facts.name} is annotated at {time:g} s in another file '
                'too; leave one out.'
            )
        keyframes[facts.name, time] = people


def _read_files(files: Sequence[str], notes: Counter) -> list[Annotations]:
    annotated_files = []
    with ErrorCollector() as errors:
        for file in files:
            with errors.collect():
                annotated_files.append(read_file(file, notes))
    return annotated_files


def _write(
    out: Path,
    label_map: Path,
    keyframes: Keyframes,
    sizes: Mapping[str, tuple[int, int]],
    ids: Mapping[str, int],
) -> list[str]:
    """Write the files; returns their names."""
    paths = [*write_annotations(out, keyframes), str(label_map)]
    if any(person.mask for people in keyframes.values() for person in people):
        write_masks(mask_file(out), collect_masks(keyframes, sizes))
        paths.append(str(mask_file(out)))
    if not label_map.exists():
        label_map.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(label_map, format_label_map(ids).encode())
    return paths


def read_file(file: str, notes: Counter) -> Annotations:
    """Read a JSON file, a list of Label Studio's or COCO's, or a CVAT XML file.

    Args:
        file: Its path.
        notes: Takes what was left out.
    """
    check_file(file)
    data, reader = Path(file).read_bytes(), read_cvat
    if Path(file).suffix.lower() == '.json':
        is_list = data.lstrip(codecs.BOM_UTF8 + b' \t\r\n').startswith(b'[')
        reader = read_labelstudio if is_list else read_coco
    return reader(file, data, notes)


def _action_ids(actions: Sequence[str], label_map: Path) -> dict[str, int]:
    """Action name -> id, from the label map if there is one."""
    if not label_map.exists():
        return {name: number for number, name in enumerate(actions, start=1)}
    ids = {name: number for number, name in read_label_names(str(label_map)).items()}
    if missing := [name for name in actions if name not in ids]:
        raise UserError(
            f'{label_map}: the label map is there already and lacks the action '
            f'{missing[0]!r}; add it there, or remove the file to have it made anew.'
        )
    return ids


def _choose(
    videos: list[AnnotatedVideo], only: Sequence[str] | None
) -> list[AnnotatedVideo]:
    """The videos with one of these names, with or without suffix; None: all."""
    if only is None:
        return videos
    names = {without_suffix(name) for video in videos for name in video.names}
    chosen_names = {*map(without_suffix, only)}
    for name in chosen_names - names:
        raise UserError(
            f'--only {name} is in none of the annotation files'
            f'{nearest(name, names) or "; correct it"}.'
        )
    return [
        video for video in videos if chosen_names & {*map(without_suffix, video.names)}
    ]


def find_facts(video: AnnotatedVideo, folder: str, fps: float | None) -> VideoFacts:
    """Look for a video, by each of its names; check that it is the annotated one."""
    shapes = [shape for shape in chain.from_iterable(video.tracks) if not shape.outside]
    last_shape = max(shapes, key=lambda shape: shape.frame, default=None)
    last_frame = last_shape.frame if last_shape else 0
    names = [*video.names, *map(without_suffix, video.names)]
    paths = {name: find_video(folder, name) for name in names}
    name = next(filter(paths.get, paths), names[0])
    if paths[name] is None:
        if fps is None or video.size is None:
            raise UserError(
                f'{video.file}: the video {name} is not in {folder}, and its frame rate '
                'or size is unknown without it; put it there, or give the frame rate of '
                'extracted frames.'
            )
        total = 1 + max([*(video.frames or ())[-1:], last_frame])
        clock = dict(fps=fps, total_frames=total, frame_times=np.arange(total) / fps)
        return VideoFacts(name, clock, video.size)
    reader = open_video(paths[name])
    total_frames = video.total_frames or max(len(reader), last_frame + 1)
    # Tools disagree on the last few frames of some videos.
    is_other = abs(total_frames - len(reader)) > reader.fps
    size, (height, width) = video.size or reader.size, reader.size
    stored = height, width / reader.pixel_aspect  # tools may show these pixels
    if is_other or (is_stretched(size, reader.size) and is_stretched(size, stored)):
        raise UserError(
            f'{last_shape.place if last_shape else video.file}: {paths[name]} has '
            f'{len(reader)} frames of (height, width) {reader.size}, but {total_frames} '
            f'of {size} were annotated; put that video there, or in Label Studio correct '
            'the framerate of the tag <Video>.'
        )
    if is_stretched(size, reader.size) and any(shape.segmentation for shape in shapes):
        raise UserError(
            f'{video.file}: masks are of the stored pixels of {paths[name]}, which are '
            'not square; annotate a copy with square pixels, or boxes instead.'
        )
    return VideoFacts(name, reader.clock, size)


def choose_keyframes(
    frames: Sequence[int], interval_s: float, clock: Mapping
) -> list[tuple[float, int]]:
    """Timestamps in seconds, and the annotated frames that they name.

    Args:
        frames: Annotated frames, rising.
        interval_s: Seconds from keyframe to keyframe, from 0 s on. Where that frame is
            not annotated, the nearest within half of it is taken, at its own time.
        clock: Of the video, as in :class:`VideoFacts`.
    """
    frames = np.array(frames)[: np.searchsorted(frames, clock['total_frames'])]
    if not len(frames):
        return []
    begins, frame_s = clock['frame_times'][frames], 1 / clock['fps']
    interval_s = max(interval_s, frame_s)  # no frame is a keyframe twice
    count = math.floor((begins[-1] + 0.5 * frame_s) / interval_s) + 1
    positions = interval_s * np.arange(count)
    nearest_indices = np.searchsorted((begins[1:] + begins[:-1]) / 2, positions)
    timestamps: dict[int, float] = {}
    for position, index in zip(positions.tolist(), nearest_indices, strict=True):
        frame, begin = int(frames[index]), float(begins[index])
        if abs(begin - position) <= interval_s / 2 and frame not in timestamps:
            is_named = frame == keyframe_index(round(position, 3), **clock)
            timestamps[frame] = round(position if is_named else begin, 3)
    return [(time, frame) for frame, time in timestamps.items()]


def _keyframes(
    video: AnnotatedVideo,
    facts: VideoFacts,
    interval_s: float,
    ids: Mapping[str, int],
    notes: Counter,
) -> Iterator[tuple[float, list[AnnotatedPerson]]]:
    """Timestamp and persons of each keyframe."""
    frames = video.frames
    if frames is None:
        frames = range(facts.clock['total_frames'])
    errors = ErrorCollector()
    for time, frame in choose_keyframes(frames, interval_s, facts.clock):
        people = []
        for person_id, track in enumerate(video.tracks):
            shape = shape_at(track, frame, interpolate=video.interpolate)
            if shape and video.in_percent:
                pixels = np.multiply(shape.bbox, facts.size[::-1] * 2) / 100
                shape = shape._replace(bbox=pixels)
            bbox_norm = shape and _bbox_norm(shape, facts.size, notes)
            if bbox_norm is None:
                continue
            with errors.collect(), blame(shape.place, 'correct it'):
                mask = read_segmentation(shape.segmentation, facts.size)
                action_ids = [ids[action] for action in shape.actions]
                people.append(AnnotatedPerson(bbox_norm, action_ids, person_id, mask))
        if not all(person.action_ids for person in people):
            what = 'as a person does nothing there; give --idle ACTION to keep them.'
            notes[f'keyframes were left out, {what}'] += 1
        elif people or frame not in video.unclear:
            yield time, people
    errors.raise_all()


def _bbox_norm(
    shape: Shape, size: tuple[int, int], notes: Counter
) -> list[float] | None:
    """The part of a box that is in the frame; None if it is outside."""
    sides = np.array(size[::-1] * 2)
    bbox = np.clip(shape.bbox, 0, sides)
    if (bbox[2:] - bbox[:2]).min() < 1:
        notes['boxes outside of the frame were left out.'] += 1
        return None
    notes['boxes were clipped to the frame.'] += not np.array_equal(bbox, shape.bbox)
    return (bbox / sides).tolist()


def read_segmentation(segmentation: object, size: tuple[int, int]) -> Mask | None:
    """RLE of what COCO's JSON calls a segmentation: polygons or RLE.

    Args:
        segmentation: As in the JSON file.
        size: (h, w) of the frame.

    Returns:
        None if there is none, or it has no pixel.

    Raises:
        ValueError: It is neither, or does not fit the frame.
    """
    height, width = size
    if isinstance(segmentation, dict) and segmentation:
        if tuple(segmentation['size']) != size:
            raise ValueError(f'its mask is not of {height} rows and {width} columns')
        mask = encode(decode(segmentation))
    else:
        polygons = [_read_polygon(part, size) for part in segmentation or () if part]
        if not polygons:
            return None
        rle = coco_masks.merge(coco_masks.frPyObjects(polygons, height, width))
        mask = dict(size=[height, width], counts=rle['counts'].decode())
    return mask if coco_masks.area(mask) else None


def _read_polygon(polygon: object, size: tuple[int, int]) -> list[float]:
    """x1, y1, x2, … of three or more points, at most a frame's size outside it."""
    points = np.array(polygon, float).reshape(-1, 2)
    # Far points take pycocotools gigabytes; NaN does not pass either.
    if not (len(points) > 2 and (abs(points / size[::-1] - 0.5) <= 1.5).all()):
        raise ValueError('its polygon has no three points in or near the frame')
    return points.ravel().tolist()
