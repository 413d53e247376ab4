"""What was found in a video, and the files that it is written to."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from stmixer_mm.datasets.videos import DamagedVideo
from stmixer_mm.files import open_atomically, write_json

VERSION = 1  # of the JSON, see docs/detections.schema.json
TABLES = ('.json', '.csv')
_COLUMNS = (
    *('video', 'time_s', 'frame'),
    *('x1', 'y1', 'x2', 'y2', 'action', 'score'),
)


class KeyframeDetections(NamedTuple):
    """What was found at one keyframe of a video; with tubelets, in any frame."""

    time_s: float
    frame_index: int  # of the keyframe, counted from 0
    bboxes: np.ndarray  # (n, 4): pixel xyxy in the video's own frame
    actions: list[list[tuple[str, float]]]  # per box (label, score), best first
    ids: list[int] | None = None  # per box, of its tube; None: of keyframes alone
    person_scores: np.ndarray | None = None  # (n,); None: the model gives none


@dataclass(kw_only=True)
class VideoDetections:
    """What was found in a whole source.

    Attributes:
        source: Its path, URL or name.
        fps: Mean frame rate.
        width, height: Of its frames, in pixels; 0 of a source that did not open.
        keyframes: In order of time.
        error: Why there is no more of it, in a sentence; None if it was read to its end.
        damage: What of it was left out, a sentence each.
    """

    source: str
    fps: float = 0.0
    width: int = 0
    height: int = 0
    keyframes: list[KeyframeDetections] = field(default_factory=list)
    error: str | None = None
    damage: list[str] = field(default_factory=list)

    def note_damage(self, damage: DamagedVideo) -> None:
        self.damage.append(str(damage))

    @property
    def has_ids(self) -> bool:
        return any(found.ids is not None for found in self.keyframes)

    def to_dict(self) -> dict:
        """What the JSON holds, see docs/detections.schema.json."""
        records = [
            dict(
                time_s=round(found.time_s, 3),
                frame=found.frame_index,
                persons=list(_list_persons(found)),
            )
            for found in self.keyframes
        ]
        content = dict(version=VERSION, video=self.source, fps=self.fps)
        content |= dict(width=self.width, height=self.height, keyframes=records)
        if self.has_ids:
            content['tubes'] = _list_tubes(records)
        if self.error is not None:
            content['error'] = self.error
        if self.damage:
            content['damage'] = self.damage
        return content

    def to_json(self, path: str | Path) -> None:
        """Write a JSON file."""
        write_json(path, self.to_dict())

    def to_table(self, path: str | Path) -> None:
        """Write a csv with a header and a row per person and action, boxes in pixels.

        A person without an action has one row in which these columns are empty. Ids
        are in a last column, if there are any.
        """
        with open_atomically(path, encoding='utf-8', newline='') as file:
            table = csv.writer(file)
            table.writerow([*_COLUMNS, 'id'] if self.has_ids else _COLUMNS)
            for found in self.keyframes:
                place = (self.source, round(found.time_s, 3), found.frame_index)
                for person in _list_persons(found):
                    ids = [person['id']] if self.has_ids else []
                    for done in person['actions'] or [dict(action='', score='')]:
                        table.writerow([*place, *person['bbox'], *done.values(), *ids])

    def save(self, path: str | Path) -> None:
        """Write JSON or the table, by the suffix of the file."""
        write = self.to_json if Path(path).suffix.lower() == '.json' else self.to_table
        write(path)


def _list_persons(found: KeyframeDetections) -> Iterator[dict]:
    for index, bbox in enumerate(found.bboxes):
        person = {} if found.ids is None else dict(id=found.ids[index])
        person['bbox'] = np.round(bbox, 2).tolist()
        if found.person_scores is not None:
            person['score'] = round(float(found.person_scores[index]), 4)
        person['actions'] = [
            dict(action=label, score=round(score, 4))
            for label, score in found.actions[index]
        ]
        yield person


def _list_tubes(records: Sequence[dict]) -> list[dict]:
    """Tubes of persons with ids, in the order in which they begin."""
    seen: dict[int, list[int]] = {}
    scores: dict[int, dict[str, dict[int, float]]] = {}
    for record in records:
        for person in record['persons']:
            seen.setdefault(person['id'], []).append(record['frame'])
            of_person = scores.setdefault(person['id'], {})
            for found in person['actions']:
                of_action = of_person.setdefault(found['action'], {})
                of_action[record['frame']] = found['score']

    def span(frames: Iterable[int]) -> dict:
        return dict(first_frame=min(frames), last_frame=max(frames))

    return [
        dict(
            id=number,
            **span(frames),
            actions=[
                dict(action=label, score=round(fmean(found.values()), 4), **span(found))
                for label, found in scores[number].items()
            ],
        )
        for number, frames in seen.items()
    ]
