"""AVA-Kinetics' Kinetics part: from the published csv to AVA's format for its clips.

A line of the published files (``kinetics_train_v1.0.csv`` and so on) is
``video_id,timestamp,x1,y1,x2,y2,action_id``: the YouTube id, the second of the whole
video with a fraction, a box in [0, 1]; or ``video_id,timestamp`` alone, a keyframe of
which no person is told. Clips of Kinetics-700 are named ``<id>_<start>_<end>``.

Taken as it is: lines in any order, blank lines, Windows line ends, a byte-order mark,
columns left empty behind the timestamp. A keyframe with boxes in other lines is not
without persons. Lines that repeat another count once.

Some clips are cut short or damaged, so those that are written are opened first.
"""

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from stmixer_mm.datasets.annotations.ava_csv import raise_first, read_lines
from stmixer_mm.datasets.converters.records import is_frame_rate
from stmixer_mm.datasets.frames import (
    VIDEO_SUFFIXES,
    count_frames,
    find_source,
    open_video,
    split_filename_tmpl,
)
from stmixer_mm.errors import UserError
from stmixer_mm.files import check_writable_dir, write_atomically

# An annotator's box may stick out of the frame this far; it is clipped.
OVERHANG = 0.1
_CLIP_NAME = re.compile(r'(?P<video>.+)_(?P<start>\d+)_(?P<end>\d+)')

FPS = 30  # of extracted frames, as KeyframeDataset's
FILENAME_TMPL = 'img_{:05}.jpg'

Progress = Callable[[Iterable], Iterable]
Bbox = tuple[float, float, float, float]  # xyxy in [0, 1]


class Clip(NamedTuple):
    """A clip cut out of a video; times in seconds of the video."""

    name: str  # path in the folder of the clips, without a suffix
    video_id: str
    start: int
    end: int
    seconds: float = math.inf  # that it really lasts, as far as it was opened


class Keyframe(NamedTuple):
    """A moment of a video, in seconds from its start."""

    video_id: str
    timestamp: float


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

    Raises:
        FileNotFoundError: the folder is missing or has no clip.
        ValueError: a path has a comma, which a csv could not name.
    """
    folder = str(folder)
    if not os.path.isdir(folder):
        raise UserError(
            f'The folder of clips {folder} does not exist; correct --clips.'
        )
    found: dict[str, Clip] = {}
    for path in _clip_paths(folder, frames):
        parsed = parse_clip_name(os.path.basename(path))
        if parsed is None:
            continue
        name = Path(path).relative_to(folder).as_posix()
        if ',' in name:
            raise UserError(
                f'{folder}: the path of the clip {name!r} has a comma, which separates '
                'the columns of a csv; rename it.'
            )
        found.setdefault(name, Clip(name, *parsed))
    if not found:
        kind = 'folder' if frames else 'video file'
        other = 'leave --frames out' if frames else 'give --frames'
        raise UserError(
            f'{folder} has no {kind} named like ID_000012_000022, the video and its '
            f'first and last second; correct --clips, or {other} if the clips are '
            f'{"videos" if frames else "folders of frames"}.'
        )
    by_video: dict[str, list[Clip]] = {}
    for name in sorted(found):
        by_video.setdefault(found[name].video_id, []).append(found[name])
    return by_video


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


def read_annotation(
    file: str | Path, summary: Summary
) -> dict[Keyframe, dict[Bbox, list[int]]]:
    """Action ids of each box of each keyframe; an empty dict for keyframes without.

    Counts clipped boxes and repeated lines in ``summary``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming the file and its first faulty line.
    """
    keyframes: dict[Keyframe, dict[Bbox, list[int]]] = {}
    clipped, faults = set(), []
    lines, unreadable = read_lines(str(file))
    if unreadable:
        raise_first([unreadable])
    for number, line in lines:
        fields = [column.strip() for column in line.split(',')]
        try:
            keyframe, bbox, action_id = _parse(fields)
        except ValueError as error:
            faults.append(f'{file}, line {number}: {error}')
            continue
        persons = keyframes.setdefault(keyframe, {})
        if bbox is None:
            continue
        inside = tuple(min(max(value, 0.0), 1.0) for value in bbox)
        if inside != bbox:
            clipped.add((keyframe, bbox))
        actions = persons.setdefault(inside, [])
        if action_id in actions:
            summary.num_repeated += 1
        else:
            actions.append(action_id)
    if faults:
        more = f' ({len(faults)} faulty lines in all)' if faults[1:] else ''
        raise UserError(f'{faults[0]}{more}')
    if not any(keyframes.values()):
        raise UserError(
            f'{file} holds no box; give kinetics_train_v1.0.csv or '
            'kinetics_val_v1.0.csv (the test set is published without boxes).'
        )
    summary.num_clipped += len(clipped)
    return keyframes


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
    progress: Progress = iter,
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
        frames: Clips are folders of extracted frames.
        empty: Write keyframes of which no person is told to ``<out>_empty.csv``, for
            ``empty_keyframes_file``. The published files do not say that nobody is
            there, so they are left out otherwise.
        lengths: Open each clip that is to be written: those that cannot be read count
            as missing, and keyframes beyond a clip's end are left out. Training would
            stop there.
        fps: Frame rate of extracted frames.
        filename_tmpl: Names of extracted frames.
        progress: Wraps the list of the clips to open, to show progress.

    Raises:
        FileNotFoundError, OSError, ValueError: a file is missing or faulty, ``out``
            cannot be written, or no clip shows any keyframe with a box.
    """
    if not is_frame_rate(fps):
        raise UserError(f'{fps:g} frames per second are impossible; correct it.')
    split_filename_tmpl(filename_tmpl)
    out = Path(out)
    summary = Summary()
    keyframes: dict[Keyframe, dict[Bbox, list[int]]] = {}
    for file in files:
        for keyframe, persons in read_annotation(file, summary).items():
            known = keyframes.setdefault(keyframe, {})
            for bbox, actions in persons.items():
                merged = known.setdefault(bbox, [])
                merged += [number for number in actions if number not in merged]
    by_video = find_clips(clips, frames=frames)
    check_writable_dir(out.parent, purpose='folder of --out')
    if lengths:
        written = [keyframe for keyframe, row in keyframes.items() if row or empty]
        length = partial(
            _seconds,
            folder=str(clips),
            fps=fps if frames else None,
            filename_tmpl=filename_tmpl,
        )
        _open_clips(by_video, written, length, summary, progress)
    rows, empty_rows = _rows(keyframes, by_video, summary)
    if not rows:
        remedy = next(iter(summary.unreadable.values()), 'give those of this split.')
        raise UserError(
            f'No clip in {clips} shows any of the {len(keyframes)} keyframes of '
            f'{", ".join(map(str, files))}; {remedy}'
        )
    contents = {out: rows}
    if empty:
        contents[out.with_name(f'{out.stem}_empty.csv')] = empty_rows
    for path, lines in contents.items():
        write_atomically(path, ''.join(f'{line}\n' for line in lines).encode())
        summary.files.append(str(path))
    return summary


def _open_clips(
    by_video: dict[str, list[Clip]],
    keyframes: Iterable[Keyframe],
    length: Callable[[str], float],
    summary: Summary,
    progress: Progress,
) -> None:
    """Set the lengths of the clips that keyframes need, and remove unreadable ones.

    Args:
        length: From a clip's name to its seconds.
    """
    needed = {
        clip
        for video_id, timestamp in keyframes
        for clip in _meant_to_show(by_video.get(video_id, ()), timestamp)
    }
    for clip in progress(sorted(needed)) if needed else ():
        kept = [other for other in by_video[clip.video_id] if other != clip]
        try:
            kept.append(clip._replace(seconds=length(clip.name)))
        except (FileNotFoundError, ValueError) as error:
            summary.unreadable[clip.name] = str(error)
        by_video[clip.video_id] = kept


def _seconds(name: str, *, folder: str, fps: float | None, filename_tmpl: str) -> float:
    """Length of a video, or of a folder of frames, which has the rate ``fps``."""
    path = find_source(folder, name, use_frames=fps is not None)
    if fps is not None:
        return count_frames(path, filename_tmpl, 1) / fps
    reader = open_video(path)
    return len(reader) / reader.get_avg_fps()


def _rows(
    keyframes: Mapping[Keyframe, Mapping[Bbox, list[int]]],
    clips: Mapping[str, Sequence[Clip]],
    summary: Summary,
) -> tuple[list[str], list[str]]:
    """Lines with boxes and lines without; what is in them and what is not is counted."""
    rows, empty_rows = [], []
    used, missing = set(), {}
    for keyframe, persons in keyframes.items():
        of_video = clips.get(keyframe.video_id, ())
        clip = choose_clip(of_video, keyframe.timestamp)
        if clip is None:
            if _meant_to_show(of_video, keyframe.timestamp):
                summary.num_beyond += 1
            elif of_video:
                summary.num_between += 1
            else:
                summary.num_without_video += 1
                missing[keyframe.video_id] = None
            continue
        place = f'{clip.name},{keyframe.timestamp - clip.start:.3f}'
        if not persons:
            summary.num_empty += 1
            empty_rows.append(place)
            continue
        used.add(clip.name)
        summary.num_keyframes += 1
        summary.num_persons += len(persons)
        for person_id, (bbox, actions) in enumerate(persons.items()):
            box = ','.join(f'{value:.6g}' for value in bbox)
            rows += [f'{place},{box},{action},{person_id}' for action in actions]
    summary.num_clips = len(used)
    summary.missing_videos = list(missing)
    return rows, empty_rows


def _clip_paths(folder: str, frames: bool) -> Iterator[str]:
    """Paths without suffix of everything that may be a clip."""
    for parent, children, names in os.walk(folder, followlinks=True):
        named = [child for child in children if parse_clip_name(child)]
        # Folders of frames hold thousands of files.
        children[:] = [child for child in children if child not in named]
        if frames:
            yield from (os.path.join(parent, child) for child in named)
            continue
        for name in names:
            stem, suffix = os.path.splitext(name)
            path = os.path.join(parent, name)
            if suffix in VIDEO_SUFFIXES and os.path.getsize(path):
                yield os.path.join(parent, stem)


def _parse(fields: Sequence[str]) -> tuple[Keyframe, Bbox | None, int]:
    """Keyframe, box (None: no person is told) and action id of the columns of a line."""
    if len(fields) not in (2, 7):
        raise UserError(
            f'it has {len(fields)} columns instead of the 7 of video_id,timestamp,x1,'
            'y1,x2,y2,action_id; correct or remove the line.'
        )
    if not fields[0]:
        raise UserError('the video_id is empty; correct or remove the line.')
    timestamp = _number(fields[1])
    if not 0 <= timestamp < math.inf:
        raise UserError(
            f'the timestamp {fields[1]!r} is not a number of seconds from 0 upwards; '
            'correct or remove the line.'
        )
    keyframe = Keyframe(fields[0], round(timestamp, 3))
    if not any(fields[2:]):
        return keyframe, None, 0
    bbox = x1, y1, x2, y2 = tuple(map(_number, fields[2:6]))
    shown = '(' + ', '.join(fields[2:6]) + ')'
    if not all(-OVERHANG <= value <= 1 + OVERHANG for value in bbox):
        raise UserError(
            f'the box {shown} is not four numbers in [0, 1]; divide x by the width, y '
            'by the height, or remove the line.'
        )
    if x1 > x2 or y1 > y2:
        raise UserError(f'the box {shown} is upside down; write it as x1,y1,x2,y2.')
    if not fields[6].isascii() or not fields[6].isdigit() or int(fields[6]) < 1:
        raise UserError(
            f'the action id {fields[6]!r} is not a whole number from 1 upwards; '
            'correct or remove the line.'
        )
    return keyframe, bbox, int(fields[6])


def _number(text: str) -> float:
    """NaN for what is no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan
