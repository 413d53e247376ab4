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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from stmixer_mm.datasets.annotations.ava_writer import (
    AnnotatedPerson,
    write_annotations,
)
from stmixer_mm.datasets.converters.records import is_frame_rate
from stmixer_mm.datasets.frames import (
    VIDEO_SUFFIXES,
    count_frames,
    find_source,
    open_video,
    split_filename_tmpl,
)
from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import check_writable_dir

# An annotator's box may stick out of the frame this far; it is clipped.
OVERHANG = 0.1
_CLIP_NAME = re.compile(r'(?P<video>.+)_(?P<start>\d+)_(?P<end>\d+)')

FPS = 30  # of extracted frames, as KeyframeDataset's
FILENAME_TMPL = 'img_{:05}.jpg'

Keyframe = tuple[str, float]  # video id and seconds from its start
Bbox = tuple[float, ...]  # xyxy in [0, 1]
Persons = dict[Bbox, list[int]]  # action ids of each box


class Clip(NamedTuple):
    """A clip cut out of a video; times in seconds of the video."""

    name: str  # path in the folder of the clips, without a suffix
    video_id: str
    start: int
    end: int
    seconds: float = math.inf  # that it really lasts, as far as it was opened


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
    folder = str(folder)
    if not os.path.isdir(folder):
        raise UserError(
            f'The folder of clips {folder} does not exist; correct --clips.'
        )
    found = sorted(set(_clip_paths(folder, frames)))
    if not found:
        what, remedy = ('folder', 'leave out') if frames else ('video file', 'give')
        raise UserError(
            f'{folder} has no {what} named like ID_000012_000022, the video and its '
            f'first and last second; correct --clips, or {remedy} --frames.'
        )
    by_video: dict[str, list[Clip]] = {}
    for path in found:
        name = Path(path).relative_to(folder).as_posix()
        if ',' in name:
            raise UserError(
                f'{folder}: the path of the clip {name!r} has a comma, which separates '
                'the columns of a csv; rename it.'
            )
        clip = Clip(name, *parse_clip_name(os.path.basename(path)))
        by_video.setdefault(clip.video_id, []).append(clip)
    return by_video


def _clip_paths(folder: str, frames: bool) -> Iterator[str]:
    """Paths without suffix of everything that is named as a clip."""
    for parent, children, names in os.walk(folder, followlinks=True):
        named = [child for child in children if parse_clip_name(child)]
        # Folders of frames hold thousands of files.
        children[:] = [child for child in children if child not in named]
        if frames:
            yield from (os.path.join(parent, child) for child in named)
            continue
        for name in names:
            stem, suffix = os.path.splitext(name)
            is_clip = suffix in VIDEO_SUFFIXES and parse_clip_name(stem)
            if is_clip and os.path.getsize(os.path.join(parent, name)):
                yield os.path.join(parent, stem)


def choose_clip(clips: Sequence[Clip], timestamp: float) -> Clip | None:
    """The clip that shows a timestamp nearest to its middle; None if none shows it."""
    return min(
        (
            clip
            for clip in _meant_to_show(clips, timestamp)
            if timestamp - clip.start <= clip.seconds
        ),
        key=lambda clip: abs(timestamp - (clip.start + clip.end) / 2),
        default=None,
    )


def _meant_to_show(clips: Sequence[Clip], timestamp: float) -> list[Clip]:
    """Clips that show a timestamp by their names."""
    return [clip for clip in clips if clip.start <= timestamp <= clip.end]


def read_annotations(
    files: Iterable[str | Path], summary: Summary
) -> dict[Keyframe, Persons]:
    """The persons of each keyframe; clipped boxes and repeated lines are counted."""
    keyframes: dict[Keyframe, Persons] = {}
    clipped = set()
    for file in files:
        with blame(f'{file}: the file', 'give a published csv file, unpacked'):
            text = Path(file).read_text('utf-8-sig')
        num_boxes = 0
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            with blame(f'{file}, line {number}', 'correct or remove the line'):
                keyframe, bbox, action_id = _parse(line)
            persons = keyframes.setdefault(keyframe, {})
            if bbox is None:
                continue
            num_boxes += 1
            inside = tuple(min(max(value, 0.0), 1.0) for value in bbox)
            if inside != bbox:
                clipped.add((keyframe, bbox))
            actions = persons.setdefault(inside, [])
            if action_id in actions:
                summary.num_repeated += 1
            else:
                actions.append(action_id)
        if not num_boxes:
            raise UserError(
                f'{file} holds no box; give kinetics_train_v1.0.csv or '
                'kinetics_val_v1.0.csv (the test set is published without boxes).'
            )
    summary.num_clipped = len(clipped)
    return keyframes


def _parse(line: str) -> tuple[Keyframe, Bbox | None, int]:
    """Keyframe, box (None: without a person) and action id of a line."""
    fields = [column.strip() for column in line.split(',')]
    if len(fields) not in (2, 7) or not fields[0]:
        raise ValueError(
            f'{line.strip()[:80]!r} is not video_id,timestamp,x1,y1,x2,y2,action_id'
        )
    timestamp = float(fields[1])
    if not 0 <= timestamp < math.inf:
        raise ValueError(f'the timestamp {fields[1]} is not in seconds from 0 upwards')
    keyframe = (fields[0], round(timestamp, 3))
    if not any(fields[2:]):
        return keyframe, None, 0
    bbox, action_id = tuple(map(float, fields[2:6])), int(fields[6])
    x1, y1, x2, y2 = bbox
    low, high = -OVERHANG, 1 + OVERHANG
    if not (low <= x1 <= x2 <= high and low <= y1 <= y2 <= high):
        shown = ', '.join(fields[2:6])
        raise ValueError(f'the box {shown} is not x1,y1,x2,y2 in [0, 1]')
    if action_id < 1:
        raise ValueError(f'the action id {action_id} is below 1')
    return keyframe, bbox, action_id


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
    progress: Callable[[Iterable], Iterable] = iter,
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
        progress: Wraps the list of the clips to open, to show progress.

    Raises:
        UserError: a file is missing or faulty, or no clip shows any keyframe with a box.
    """
    if not is_frame_rate(fps):
        raise UserError(f'{fps:g} frames per second are impossible; correct it.')
    split_filename_tmpl(filename_tmpl)
    out, summary = Path(out), Summary()
    keyframes = read_annotations(files, summary)
    by_video = find_clips(clips, frames=frames)
    check_writable_dir(out.parent, purpose='folder of --out')

    def seconds(name: str) -> float:
        path = find_source(str(clips), name, use_frames=frames)
        if frames:
            return count_frames(path, filename_tmpl, 1) / fps
        reader = open_video(path)
        return len(reader) / reader.get_avg_fps()

    if lengths:
        written = [keyframe for keyframe, row in keyframes.items() if row or empty]
        _open_clips(by_video, written, seconds, summary, progress)
    shown = _in_clips(keyframes, by_video, summary)
    with_persons = {key: persons for key, persons in shown.items() if persons}
    if not with_persons:
        remedy = next(iter(summary.unreadable.values()), 'give those of this split.')
        raise UserError(
            f'No clip in {clips} shows any of the {len(keyframes)} keyframes of '
            f'{", ".join(map(str, files))}; {remedy}'
        )
    summary.num_clips = len({name for name, _ in with_persons})
    summary.num_keyframes = len(with_persons)
    summary.num_persons = sum(map(len, with_persons.values()))
    summary.num_empty = len(shown) - len(with_persons)
    summary.files = write_annotations(out, shown, with_empty=empty)
    return summary


def _open_clips(
    by_video: dict[str, list[Clip]],
    keyframes: Iterable[Keyframe],
    seconds: Callable[[str], float],
    summary: Summary,
    progress: Callable[[Iterable], Iterable],
) -> None:
    """Set the lengths of the clips that keyframes need, and remove unreadable ones."""
    needed = {
        clip
        for video_id, timestamp in keyframes
        for clip in _meant_to_show(by_video.get(video_id, ()), timestamp)
    }
    for clip in progress(sorted(needed)) if needed else ():
        kept = [other for other in by_video[clip.video_id] if other != clip]
        try:
            kept.append(clip._replace(seconds=seconds(clip.name)))
        except UserError as error:
            summary.unreadable[clip.name] = str(error)
        by_video[clip.video_id] = kept


def _in_clips(
    keyframes: Mapping[Keyframe, Persons],
    clips: Mapping[str, Sequence[Clip]],
    summary: Summary,
) -> dict[tuple[str, float], list[AnnotatedPerson]]:
    """Persons by clip and second of it; keyframes that no clip shows are counted."""
    shown, missing = {}, {}
    for (video_id, timestamp), persons in keyframes.items():
        of_video = clips.get(video_id, ())
        clip = choose_clip(of_video, timestamp)
        if clip is not None:
            shown[clip.name, timestamp - clip.start] = [
                AnnotatedPerson(bbox, actions, person_id)
                for person_id, (bbox, actions) in enumerate(persons.items())
            ]
        elif _meant_to_show(of_video, timestamp):
            summary.num_beyond += 1
        elif of_video:
            summary.num_between += 1
        else:
            summary.num_without_video += 1
            missing[video_id] = None
    summary.missing_videos = list(missing)
    return shown
