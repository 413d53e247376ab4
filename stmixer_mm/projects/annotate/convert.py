"""From annotation files to the csv files and the label map that training reads."""

import math
import reprlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np

from stmixer_mm.command_line import Positive, number
from stmixer_mm.datasets.annotations.ava_csv import read_label_names
from stmixer_mm.datasets.annotations.ava_writer import (
    AnnotatedPerson,
    write_annotations,
)
from stmixer_mm.datasets.annotations.label_map import format_label_map
from stmixer_mm.datasets.annotations.masks import (
    collect_masks,
    mask_file,
    write_masks,
)
from stmixer_mm.datasets.frames import find_video, is_stretched, keyframe_index
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.errors import UserError, blame, nearest
from stmixer_mm.files import check_file, check_writable_file, write_atomically
from stmixer_mm.projects.annotate.actions import resolve_actions
from stmixer_mm.projects.annotate.coco import CocoReader
from stmixer_mm.projects.annotate.cvat import read_cvat
from stmixer_mm.projects.annotate.records import (
    FRAME_RATES,
    AnnotatedVideo,
    Annotations,
    Conversion,
    Shape,
    unique,
)
from stmixer_mm.projects.annotate.segmentation import read_segmentation


class VideoFacts(NamedTuple):
    """A video, as far as it is known."""

    name: str
    fps: float
    total_frames: int | None
    size: tuple[float, float]  # width and height of the annotated frames
    times: np.ndarray | None = None  # of its frames, where they are known

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) of the annotated frames."""
        width, height = map(round, self.size)
        return height, width


def convert_annotations(
    files: Sequence[str],
    *,
    out: str,
    videos: str,
    label_map: str | None = None,
    every: Positive = 1,
    fps: Annotated[float | None, number(float, *FRAME_RATES)] = None,
    only: list[str] | None = None,
    attributes: list[str] | None = None,
    idle: str | None = None,
    first_frame: int = 0,
) -> Conversion:
    """Write ``out`` in AVA's format, ``<out>_empty.csv`` and the label map.

    Where persons have masks or are polygons, write ``<out>_masks.json`` too.

    Args:
        files: CVAT XML or COCO JSON files.
        out: The csv file to write; keyframes without persons go beside it.
        videos: Folder of the videos, whose frame rates count.
        label_map: Label map (pbtxt); its ids are taken if it exists, else it is
            written. By default action_list.pbtxt beside the csv file.
        every: Seconds from keyframe to keyframe, from 0 s on.
        fps: Frame rate of videos that are not in the folder (extracted frames).
        only: Videos to convert, by name, with or without suffix and folders; by default
            all.
        attributes: Attributes that hold actions; by default all.
        idle: Action of persons that do nothing. Without it their keyframes are left
            out, since they would be neither persons nor background.
        first_frame: Number of a video's first frame in COCO files.

    Raises:
        UserError: naming the file and the place.
    """
    out, idle = Path(out), idle.strip() if idle else None
    check_writable_file(out, purpose='--out', suffixes=('.csv',))
    label_map = Path(label_map) if label_map else out.with_name('action_list.pbtxt')
    read = [read_file(file, first_frame=first_frame) for file in files]
    annotated = [video for one in read for video in one.videos]
    _check_names('video', only, (name for video in annotated for name in video.names))
    _check_names('attribute', attributes, _attribute_names(read))
    done = Conversion()
    names = [
        name for one in read for name in resolve_actions(one, attributes, done.notes)
    ]
    ids = _action_ids(unique([*names, *([idle] if idle else ())]), label_map)
    keyframes: dict[tuple[str, float], list[AnnotatedPerson]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for video in annotated:
        if only is not None and not set(only) & set(video.names):
            continue
        facts = find_facts(video, videos, fps)
        done.num_videos += 1
        sizes[facts.name] = facts.shape
        for time, people in _keyframes(video, facts, every, ids, idle, done):
            if (facts.name, time) in keyframes:
                raise UserError(
                    f'{video.file}: {facts.name} is annotated at {time:g} s in another '
                    'file too; leave one out.'
                )
            keyframes[facts.name, time] = people
    if not any(keyframes.values()):
        raise UserError(
            f'{", ".join(files)} has no person with an action at a keyframe, one every '
            f'{every:g} s; convert more keyframes, or see whether the actions are '
            'attributes.'
        )
    done.num_keyframes = len(keyframes)
    done.num_empty = sum(not people for people in keyframes.values())
    done.files = [*write_annotations(out, keyframes), str(label_map)]
    if done.num_masks:
        write_masks(mask_file(out), collect_masks(keyframes, sizes))
        done.files.append(str(mask_file(out)))
    if not label_map.exists():
        label_map.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(label_map, format_label_map(ids).encode())
    return done


def read_file(file: str, *, first_frame: int = 0) -> Annotations:
    """Read a CVAT XML or COCO JSON file, told apart by their first character."""
    check_file(file)
    data = Path(file).read_bytes()
    # After byte-order marks, zero bytes of UTF-16 and white space.
    start = data.lstrip(b'\xef\xbb\xbf\xff\xfe\0 \t\r\n')[:1]
    if start == b'<':
        return read_cvat(file, data)
    if start == b'{':
        return CocoReader(file, first_frame).read(data)
    raise UserError(
        f'{file}: the file is neither XML nor a JSON object; unpack it if it is packed, '
        'or export "CVAT for video 1.1" or COCO with videos.'
    )


def choose_keyframes(
    frames: Sequence[int],
    *,
    every: float,
    fps: float,
    total_frames: int,
    times: np.ndarray | None = None,
) -> list[tuple[float, int]]:
    """Timestamps in seconds, and the annotated frames that they name.

    Args:
        frames: Annotated frames, rising.
        every: Seconds from keyframe to keyframe, from 0 s on. Where that frame is not
            annotated, the nearest within half of ``every`` is taken, at its own time.
        fps: Mean frame rate.
        total_frames: Frames of the video.
        times: (total_frames,) seconds at which frames begin; by default evenly spaced.
    """
    frames = frames[: bisect_left(frames, total_frames)]
    every = max(every, 1 / fps)  # no frame is a keyframe twice
    if not frames:
        return []
    chosen: dict[int, float] = {}
    begin = times if times is not None else np.arange(total_frames) / fps
    first = max(0, math.ceil((begin[frames[0]] - 0.5 / fps) / every))
    last = math.floor((begin[frames[-1]] + 0.5 / fps) / every)
    for position in (every * step for step in range(first, last + 1)):
        index = bisect_left(frames, position, key=begin.__getitem__)
        near = frames[max(0, index - 1) : index + 1]
        distance, frame = min((abs(begin[frame] - position), frame) for frame in near)
        if distance > every / 2 or frame in chosen:
            continue
        at, own = round(position, 3), round(float(begin[frame]), 3)
        fits = at * fps <= total_frames and frame == keyframe_index(
            at, fps=fps, total_frames=total_frames, frame_times=times
        )
        chosen[frame] = at if fits else own
    return [(time, frame) for frame, time in chosen.items()]


def shape_at(track: Sequence[Shape], frame: int, *, interpolate: bool) -> Shape | None:
    """The person of a track in a frame, None where it is not seen.

    Args:
        track: Shapes by rising frame.
        frame: Its number.
        interpolate: Between two shapes the box moves in a straight line and turns the
            shorter way; it stays where it is if the person is not seen from the second
            on. The actions are those of the first. Else only frames with a shape count.
    """
    index = bisect_right(track, frame, key=lambda shape: shape.frame)
    if index == 0 or track[index - 1].outside:
        return None
    before = track[index - 1]
    if before.frame == frame:
        return before
    if not interpolate or index == len(track):
        return None
    after = track[index]
    shape = before._replace(frame=frame, segmentation=None)
    if after.outside:
        return shape
    share = (frame - before.frame) / (after.frame - before.frame)
    start, end = np.array(before.bbox), np.array(after.bbox)
    turn = (after.rotation - before.rotation + 180) % 360 - 180
    return shape._replace(
        bbox=tuple(start + share * (end - start)),
        rotation=before.rotation + share * turn,
    )


def find_facts(video: AnnotatedVideo, folder: str, fps: float | None) -> VideoFacts:
    """Look for a video, by each of its names; check that it is the annotated one."""
    paths = {name: find_video(folder, name) for name in video.names}
    name = next(filter(paths.get, paths), video.names[0])
    path = paths[name]
    if path is None:
        rate = fps or video.fps
        if rate is None or video.size is None:
            raise UserError(
                f'{video.file}: the video {name} is not in {folder}, and its frame rate '
                'or size is unknown without it; put it there, or give the frame rate of '
                'extracted frames.'
            )
        return VideoFacts(name, rate, None, video.size)
    reader = open_video(path)
    height, width = reader.size
    size = video.size or (width, height)
    if is_stretched(size, (width, height)):
        raise UserError(
            f'{video.file}: the annotated video has {size[0]:g}x{size[1]:g} pixels, '
            f'but {path} has {width}x{height}; put the annotated one there.'
        )
    facts = VideoFacts(name, reader.fps, len(reader), size, reader.times)
    for shape in chain.from_iterable(video.tracks):
        # Tools disagree on the last few frames of some videos.
        if shape.frame >= facts.total_frames + facts.fps and not shape.outside:
            raise UserError(
                f'{shape.place}: frame {shape.frame} is annotated, but {path} has '
                f'{facts.total_frames} frames; put the annotated video there.'
            )
    return facts


def _keyframes(
    video: AnnotatedVideo,
    facts: VideoFacts,
    every: float,
    ids: Mapping[str, int],
    idle: str | None,
    done: Conversion,
) -> Iterator[tuple[float, list[AnnotatedPerson]]]:
    """Timestamp and persons of each keyframe; counts into ``done``."""
    notes = done.notes
    ignored = 'boxes were left out: they are of crowds, or to be ignored.'
    notes[ignored] += len(video.unclear)
    notes['points, lines and skeletons were left out.'] += video.num_unread
    frames = video.frames
    if frames is None:
        last = max((s.frame for s in chain.from_iterable(video.tracks)), default=0)
        frames = range(facts.total_frames or last + 1)
    total = facts.total_frames or (frames[-1] + 1 if frames else 1)
    sides = np.array(facts.size * 2)
    times = choose_keyframes(
        frames, every=every, fps=facts.fps, total_frames=total, times=facts.times
    )
    for time, frame in times:
        people, actions = [], []
        for person_id, track in enumerate(video.tracks):
            shape = shape_at(track, frame, interpolate=video.interpolate)
            if shape is None:
                continue
            drawn = np.array(shape.enclosing_bbox())
            bbox = drawn.clip(0, sides)
            if (bbox[2:] - bbox[:2]).min() < 1:
                notes['boxes outside of the frame were left out.'] += 1
                continue
            notes['boxes were clipped to the frame.'] += not np.array_equal(bbox, drawn)
            own = shape.actions or ((idle,) if idle else ())
            with blame(shape.place, 'correct it'):
                mask = read_segmentation(shape.segmentation, facts.shape)
            action_ids = [ids[action] for action in own]
            people.append(AnnotatedPerson(bbox / sides, action_ids, person_id, mask))
            actions += own
        if not all(person.action_ids for person in people):
            what = 'as a person does nothing there; give --idle ACTION to keep them.'
            notes[f'keyframes were left out, {what}'] += 1
        elif people or frame not in video.unclear:
            done.num_persons += len(people)
            done.num_masks += sum(person.mask is not None for person in people)
            done.class_counts.update(actions)
            yield time, people


def _action_ids(actions: Sequence[str], label_map: Path) -> dict[str, int]:
    """Action name -> id, from the label map if there is one."""
    if not label_map.exists():
        if broken := [name for name in actions if set(name) & set('\r\n')]:
            raise UserError(
                f'The name of the action {broken[0]!r} has a line end, which a label '
                'map cannot have; rename it.'
            )
        return {name: number for number, name in enumerate(actions, start=1)}
    ids = {name: number for number, name in read_label_names(str(label_map)).items()}
    if lacking := [name for name in actions if name not in ids]:
        raise UserError(
            f'{label_map}: the label map is there already and lacks the action '
            f'{lacking[0]!r}; add it there, or remove the file to have it made anew.'
        )
    return ids


def _attribute_names(read: Sequence[Annotations]) -> Iterator[str]:
    for one in read:
        yield from (name for _, name in one.declared)
        for video in one.videos:
            for shape in chain.from_iterable(video.tracks):
                yield from shape.attributes


def _check_names(what: str, names: Iterable[str] | None, known: Iterable[str]) -> None:
    """Refuse names that are not known."""
    known = unique(known)
    for name in names or ():
        if name not in known:
            shown = reprlib.repr(known) if known else 'none'
            remedy = nearest(name, known) or f'; they have {shown}, correct it.'
            raise UserError(
                f'The {what} {name!r} is in none of the annotation files{remedy}'
            )
