"""AVA-Kinetics' Kinetics part: from the published csv to AVA's format for its clips.

A line of the published files (``kinetics_train_v1.0.csv`` and so on) is
``video_id,timestamp,x1,y1,x2,y2,action_id``: the YouTube id, the second of the whole
video with a fraction, a box in [0, 1]; or ``video_id,timestamp`` alone, a keyframe
without a person. Clips of Kinetics-700 are named ``<id>_<start>_<end>``.

Accepted on purpose: lines in any order, blank lines, Windows line ends, a byte-order
mark, empty columns behind the timestamp, lines that repeat another, and a line without
a person beside lines with boxes. Some clips are cut short or damaged, so those that are
written are opened first.
"""

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from stmixer_mm.datasets.annotations.ava_writer import (
    AnnotatedPerson,
    write_annotations,
)
from stmixer_mm.datasets.frames import (
    VIDEO_SUFFIXES,
    count_frames,
    find_source,
    split_filename_tmpl,
)
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import check_file
from stmixer_mm.projects.annotate.records import unique

# An annotator's box may stick out of the frame this far; it is clipped.
OVERHANG = 0.1
_CLIP_NAME = re.compile(r'(?P<video>.+)_(?P<start>\d+)_(?P<end>\d+)')
_FORM = (
    'video_id,timestamp,x1,y1,x2,y2,action_id with seconds, a box in [0, 1] and an id '
    'from 1 on, or video_id,timestamp'
)

FPS = 30  # of extracted frames, as KeyframeDataset's
FILENAME_TMPL = 'img_{:05}.jpg'

Keyframe = tuple[str, float]  # video id and seconds from its start
Bbox = tuple[float, ...]  # xyxy in [0, 1]
Persons = dict[Bbox, list[int]]  # action ids of each box


class Clip(NamedTuple):
    """A clip cut out of a video; times in seconds of the video."""

    name: str  # path in the folder of the clips, without a suffix
    start: int
    end: int


@dataclass
class Summary:
    """What was written, and what was left out and why."""

    files: list[str] = field(default_factory=list)
    num_clips: int = 0
    num_keyframes: int = 0  # with persons
    num_persons: int = 0
    num_empty: int = 0  # without persons, in clips that are there
    num_without_video: int = 0  # keyframes of videos without any clip
    missing_videos: list[str] = field(default_factory=list)
    num_between: int = 0  # keyframes that no clip of their video shows
    num_beyond: int = 0  # keyframes beyond the ends of clips that were cut short
    unreadable: dict[str, str] = field(default_factory=dict)  # why, by clip
    num_clipped: int = 0  # boxes
    num_repeated: int = 0  # lines


def parse_clip_name(name: str) -> tuple[str, int, int] | None:
    """Video id, start and end in seconds of a clip's name; None for other names.

    >>> parse_clip_name('a_b-c_000012_000022')
    ('a_b-c', 12, 22)
    """
    match = _CLIP_NAME.fullmatch(name)
    if match is None or int(match['start']) >= int(match['end']):
        return None
    return match['video'], int(match['start']), int(match['end'])


def find_clips(folder: str | Path, *, frames: bool = False) -> dict[str, list[Clip]]:
    """Clips by video id of all video files in a folder and in the folders in it.

    Empty files count as missing: that is what failed downloads leave.

    Args:
        folder: Where the clips are, in folders of their classes or not.
        frames: Look for folders of extracted frames, named as clips, instead.
    """
    by_video: dict[str, list[Clip]] = {}
    for parent, children, files in os.walk(folder, followlinks=True):
        named = {child for child in children if parse_clip_name(child)}
        # Folders of frames hold thousands of files.
        children[:] = set(children) - named
        if not frames:
            paths = [Path(parent, file) for file in files]
            paths = [path for path in paths if path.suffix in VIDEO_SUFFIXES]
            paths = [path for path in paths if parse_clip_name(path.stem)]
            named = {path.stem for path in paths if path.stat().st_size}
        for name in named:
            video_id, start, end = parse_clip_name(name)
            place = Path(parent, name).relative_to(folder).as_posix()
            by_video.setdefault(video_id, []).append(Clip(place, start, end))
    if not by_video:
        what, remedy = ('folder', 'leave out') if frames else ('video file', 'give')
        raise UserError(
            f'{folder} has no {what} named like ID_000012_000022, the video and its '
            f'first and last second; correct --clips, or {remedy} --frames.'
        )
    return by_video


def read_annotations(
    files: Sequence[str | Path], summary: Summary
) -> dict[Keyframe, Persons]:
    """The persons of each keyframe; clipped boxes and repeated lines are counted."""
    keyframes: dict[Keyframe, Persons] = {}
    for file in files:
        check_file(file)
        with blame(f'{file}: the file', 'give a published csv file, unpacked'):
            text = Path(file).read_text('utf-8-sig')
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            place = f'{file}, line {number}: {line.strip()[:80]!r}'
            with blame(f'{place} is not {_FORM}', 'correct or remove the line'):
                keyframe, bbox, action_id = _parse(line)
            persons = keyframes.setdefault(keyframe, {})
            if not bbox:
                continue
            inside = tuple(min(max(value, 0.0), 1.0) for value in bbox)
            summary.num_clipped += inside != bbox and inside not in persons
            actions = persons.setdefault(inside, [])
            if action_id in actions:
                summary.num_repeated += 1
            else:
                actions.append(action_id)
    if not any(keyframes.values()):
        raise UserError(
            f'{", ".join(map(str, files))} holds no box; give kinetics_train_v1.0.csv '
            'or kinetics_val_v1.0.csv (the test set is published without boxes).'
        )
    return keyframes


def _parse(line: str) -> tuple[Keyframe, Bbox, int]:
    """Keyframe, box (empty: without a person) and action id of a line."""
    video_id, seconds, *rest = (column.strip() for column in line.split(','))
    timestamp, *bbox = map(float, [seconds, *rest[:-1]] if any(rest) else [seconds])
    action_id = int(rest[-1]) if bbox else 1
    x1, y1, x2, y2 = bbox or (0, 0, 1, 1)
    low, high = -OVERHANG, 1 + OVERHANG
    in_frame = low <= x1 <= x2 <= high and low <= y1 <= y2 <= high
    if not (video_id and 0 <= timestamp < math.inf and in_frame and action_id >= 1):
        raise ValueError('a value is missing or out of range')
    return (video_id, round(timestamp, 3)), tuple(bbox), action_id


def choose_clip(
    clips: Iterable[Clip], timestamp: float, length: Callable[[Clip], float]
) -> Clip | None:
    """The clip that shows a timestamp nearest to its middle; None if none shows it.

    Args:
        length: Seconds that a clip really lasts.
    """

    def distance(clip: Clip) -> tuple[float, Clip]:
        return abs(2 * timestamp - clip.start - clip.end), clip

    for clip in sorted(clips, key=distance):
        if timestamp - clip.start <= length(clip):
            return clip
    return None


def convert_ava_kinetics(
    files: Sequence[str | Path],
    out: str | Path,
    *,
    clips: str | Path,
    frames: bool = False,
    empty: bool = False,
    lengths: bool = True,
    fps: float = FPS,
    filename_tmpl: str = FILENAME_TMPL,
    progress: Callable[[Sequence], Iterable] = iter,
) -> Summary:
    """Write AVA's format for the clips that are there.

    A line of ``out`` is ``clip,timestamp,x1,y1,x2,y2,action_id,person_id``, where clip
    is the path in the folder ``clips`` without a suffix, the timestamp counts from the
    start of the clip, and person_id numbers the distinct boxes of a keyframe, since
    the published files name no persons. What no clip shows is left out and counted.

    Args:
        files: Published csv files.
        out: File to write.
        clips: Folder of the clips, see :func:`find_clips`.
        frames: Clips are folders of extracted frames, named by ``filename_tmpl``, with
            ``fps`` of them in a second.
        empty: Write keyframes without a person to ``<out>_empty.csv``, for
            ``empty_keyframes_file``. The published files do not say that nobody is
            there, so they are left out otherwise.
        lengths: Open each clip that is to be written: those that cannot be read count
            as missing, and keyframes beyond a clip's end are left out. Training would
            stop there.
        progress: Wraps the list of the keyframes, to show progress.

    Raises:
        UserError: a file is missing or faulty, or no clip shows any keyframe with a box.
    """
    split_filename_tmpl(filename_tmpl)
    summary = Summary()
    keyframes = read_annotations(files, summary)
    by_video = find_clips(clips, frames=frames)

    @cache
    def length(clip: Clip) -> float:
        """Seconds that a clip really lasts, below 0 if it cannot be read."""
        try:
            path = find_source(str(clips), clip.name, use_frames=frames)
            if frames:
                return count_frames(path, filename_tmpl, 1) / fps
            reader = open_video(path)
            return len(reader) / reader.fps
        except UserError as error:
            summary.unreadable[clip.name] = str(error)
            return -1.0

    shown: dict[tuple[str, float], list[AnnotatedPerson]] = {}
    wanted = list(keyframes.items())
    for (video_id, timestamp), persons in progress(wanted) if lengths else wanted:
        of_video = by_video.get(video_id, ())
        meant = [clip for clip in of_video if clip.start <= timestamp <= clip.end]
        is_opened = lengths and (persons or empty)
        lasts = length if is_opened else lambda _: math.inf
        clip = choose_clip(meant, timestamp, lasts)
        if clip is not None:
            shown[clip.name, timestamp - clip.start] = [
                AnnotatedPerson(bbox, actions, person_id)
                for person_id, (bbox, actions) in enumerate(persons.items())
            ]
        elif not {clip.name for clip in of_video} - summary.unreadable.keys():
            summary.num_without_video += 1
            summary.missing_videos.append(video_id)
        elif {clip.name for clip in meant} - summary.unreadable.keys():
            summary.num_beyond += 1
        else:
            summary.num_between += 1
    with_persons = [key for key, persons in shown.items() if persons]
    if not with_persons:
        remedy = next(iter(summary.unreadable.values()), 'give those of this split.')
        raise UserError(
            f'No clip in {clips} shows any of the {len(keyframes)} keyframes of '
            f'{", ".join(map(str, files))}; {remedy}'
        )
    summary.missing_videos = unique(summary.missing_videos)
    summary.num_clips = len({name for name, _ in with_persons})
    summary.num_keyframes = len(with_persons)
    summary.num_persons = sum(map(len, shown.values()))
    summary.num_empty = len(shown) - len(with_persons)
    summary.files = write_annotations(out, shown, with_empty=empty)
    return summary
