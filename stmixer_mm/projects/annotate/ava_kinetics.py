"""AVA-Kinetics' Kinetics part: from the published csv to AVA's format for its clips.

A line of the published files (``kinetics_train_v1.0.csv`` and so on) is
``video_id,timestamp,x1,y1,x2,y2,action_id``: the YouTube id, the second of the whole
video with a fraction, a box in [0, 1]; or ``video_id,timestamp`` alone, a keyframe
without a person. Clips of Kinetics-700 are named ``<id>_<start>_<end>``.

Accepted on purpose: lines in any order, blank lines, Windows line ends, a byte-order
mark, empty columns after the timestamp, lines that repeat another, and a line without
a person beside lines with boxes. Some clips are cut short or damaged, so those that are
written are opened first.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from stmixer_mm.datasets.annotations.ava_csv import right_lines
from stmixer_mm.datasets.frames import VIDEO_SUFFIXES, find_video
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.errors import UserError
from stmixer_mm.files import check_writable_file
from stmixer_mm.projects.annotate.records import Conversion
from stmixer_mm.projects.common.ava_writer import (
    AnnotatedPerson,
    write_annotations,
)

# An annotator's box may stick out of the frame this far; it is clipped.
OVERHANG = 0.1
_CLIP_NAME = re.compile(r'(?P<video>.+)_(?P<start>\d+)_(?P<end>\d+)')
_FORM = (
    'a line video_id,timestamp,x1,y1,x2,y2,action_id with seconds, a box in [0, 1] and '
    'an id from 1 on, or video_id,timestamp'
)

Moment = tuple[str, float]  # video id and seconds from its start
Bbox = tuple[float, ...]  # xyxy in [0, 1]
Persons = dict[Bbox, list[int]]  # action ids of each box


class KineticsClip(NamedTuple):
    """A clip cut out of a video; times in seconds of the video."""

    name: str  # path in the folder of the clips, without a suffix
    start: int
    end: int


def convert_ava_kinetics(files: Sequence[str], *, clips: str, out: str) -> Conversion:
    """Convert AVA-Kinetics' annotation of Kinetics to AVA's format for your clips.

    A line of OUT is clip,timestamp,x1,y1,x2,y2,action_id,person_id, where clip is the
    path in the folder CLIPS without a suffix, the timestamp counts from the start of
    the clip, and person_id numbers the distinct boxes of a keyframe. Left out and
    counted are keyframes that no clip shows, and those without a person, which need
    not be person-free.

    Args:
        files: Published files, such as kinetics_train_v1.0.csv.
        clips: Folder of the clips, named ID_START_END.mp4, in folders of their classes
            or not. Each that is written is opened first.
        out: The csv file to write.

    Raises:
        UserError: a file is missing or faulty, or no clip shows any keyframe with a box.
    """
    check_writable_file(out, purpose='--out')
    notes = Counter()
    published, by_video = read_published(files), find_clips(clips)

    @cache
    def length(clip: KineticsClip) -> float:
        """Seconds that a clip really lasts, below 0 if it cannot be read."""
        try:
            reader = open_video(find_video(str(clips), clip.name))
            return len(reader) / reader.fps
        except UserError:
            notes['clips cannot be read and count as missing.'] += 1
            return -1.0

    keyframes = {}
    for (video_id, timestamp), persons in tqdm(published.items(), unit='keyframe'):
        if not persons:
            notes['keyframes were left out: they have no person.'] += 1
            continue
        clip = choose_clip(by_video.get(video_id, ()), timestamp, length)
        if clip is None:
            notes['keyframes were left out: no clip shows them.'] += 1
            continue
        keyframes[clip.name, timestamp - clip.start] = [
            AnnotatedPerson(bbox, actions, person_id)
            for person_id, (bbox, actions) in enumerate(persons.items())
        ]
    if not keyframes:
        raise UserError(
            f'No clip in {clips} shows a person of the {len(published)} keyframes of '
            f'{", ".join(map(str, files))}; give those of this split.'
        )
    written = write_annotations(out, keyframes, with_empty=False)
    return Conversion(files=written, keyframes=keyframes, notes=notes)


def find_clips(folder: str | Path) -> dict[str, list[KineticsClip]]:
    """Clips by video id of all video files in a folder and in the folders in it.

    Empty files count as missing: that is what failed downloads leave.
    """
    by_video: dict[str, list[KineticsClip]] = {}
    for parent, _, files in os.walk(folder, followlinks=True):
        for path in (Path(parent, file) for file in files):
            match = _CLIP_NAME.fullmatch(path.stem)
            if match and path.suffix in VIDEO_SUFFIXES and path.stat().st_size:
                name = path.with_suffix('').relative_to(folder).as_posix()
                clip = KineticsClip(name, int(match['start']), int(match['end']))
                by_video.setdefault(match['video'], []).append(clip)
    if not by_video:
        raise UserError(
            f'{folder} has no video file named like ID_000012_000022, the video and its '
            'first and last second; correct --clips.'
        )
    return by_video


def read_published(files: Sequence[str | Path]) -> dict[Moment, Persons]:
    """The persons of each keyframe; boxes are clipped to the frame."""
    keyframes: dict[Moment, Persons] = {}
    for file in files:
        for moment, bbox, action_id in right_lines(file, _parse, _FORM):
            persons = keyframes.setdefault(moment, {})
            if bbox:
                actions = persons.setdefault(bbox, [])
                actions += [action_id] * (action_id not in actions)
    return keyframes


def _parse(number: int, line: str) -> tuple[Moment, Bbox, int]:
    """Keyframe, box (empty: without a person) and action id of a line."""
    video_id, seconds, *person_columns = (column.strip() for column in line.split(','))
    *bbox_columns, action_column = person_columns if any(person_columns) else ['']
    timestamp, *bbox = map(float, [seconds, *bbox_columns])
    action_id = int(action_column) if bbox else 1
    x1, y1, x2, y2 = bbox or (0, 0, 1, 1)
    low, high = -OVERHANG, 1 + OVERHANG
    in_frame = low <= x1 <= x2 <= high and low <= y1 <= y2 <= high
    if not (video_id and 0 <= timestamp < math.inf and in_frame and action_id >= 1):
        raise ValueError('a value is missing or out of range')
    inside = tuple(min(max(value, 0.0), 1.0) for value in bbox)
    return (video_id, round(timestamp, 3)), inside, action_id


def choose_clip(
    clips: Iterable[KineticsClip],
    timestamp: float,
    length: Callable[[KineticsClip], float],
) -> KineticsClip | None:
    """The clip that shows a timestamp nearest to its middle; None if none shows it.

    Args:
        clips: Of the video.
        timestamp: In seconds of the video.
        length: Seconds that a clip really lasts.
    """

    def distance(clip: KineticsClip) -> tuple[float, KineticsClip]:
        return abs(2 * timestamp - clip.start - clip.end), clip

    meant = [clip for clip in clips if clip.start <= timestamp <= clip.end]
    for clip in sorted(meant, key=distance):
        if timestamp - clip.start <= length(clip):
            return clip
    return None
