"""What was found in a video, and the files that it is written to."""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from mmaction.structures import ActionDataSample
from mmengine.structures import InstanceData

from stmixer_mm.datasets.annotations.masks import Mask, decode
from stmixer_mm.datasets.frames import without_suffix
from stmixer_mm.datasets.videos import DamagedVideo, join_stretches, open_video
from stmixer_mm.errors import UserError
from stmixer_mm.files import open_atomically, write_json
from stmixer_mm.projects.annotate.records import AnnotatedVideo, Shape
from stmixer_mm.projects.annotate.writers import write_coco, write_cvat
from stmixer_mm.visualization.draw import draw_detections, enlarge, person_colors

VERSION = 1  # of the JSON, see docs/detections.schema.json
TABLES = ('.json', '.csv')
_COLUMNS = (
    *('video', 'time_s', 'frame'),
    *('x1', 'y1', 'x2', 'y2', 'action', 'score'),
)


class KeyframeDetections(NamedTuple):
    """What was found at one keyframe of a video; with tubelets, in any frame."""

    time_s: float
    frame_index: int  # of the keyframe, from 0; if foretold, maybe beyond the last
    bboxes: np.ndarray  # (n, 4): pixel xyxy in the video's own frame
    actions: list[list[tuple[str, float]]]  # per box (label, score), best first
    ids: list[int] | None = None  # per box, of its person; None: nobody is followed
    person_scores: np.ndarray | None = None  # (n,); None: the model gives none
    ahead_s: float = 0.0  # from the last frame seen to the keyframe, if it was foretold
    masks: list[Mask] | None = None  # per box, in the video's own frame; None as above


@dataclass(kw_only=True)
class VideoDetections:
    """What was found in a whole source.

    Attributes:
        source: Its path, URL or name.
        fps: Mean frame rate.
        width, height: Of its frames, in pixels; 0 if it did not open.
        total_frames: Of the source, as far as it was read.
        classes: Names of the label ids 1, 2, …; None: unknown.
        keyframes: In order of time.
        error: Why it was not read to its end, in a sentence; None if it was.
        damage: (first, last) seconds of what was left out because it cannot be decoded.
    """

    source: str
    fps: float = 0.0
    width: int = 0
    height: int = 0
    total_frames: int = 0
    classes: tuple[str, ...] | None = None
    keyframes: list[KeyframeDetections] = field(default_factory=list)
    error: str | None = None
    damage: list[tuple[float, float]] = field(default_factory=list)

    def note_damage(self, damage: DamagedVideo) -> None:
        self.damage = join_stretches([*self.damage, damage.stretch])

    @property
    def has_ids(self) -> bool:
        return any(found.ids is not None for found in self.keyframes)

    def to_dict(self) -> dict:
        """What the JSON holds, see docs/detections.schema.json."""
        records = [keyframe_record(found) for found in self.keyframes]
        content = dict(version=VERSION, video=self.source, fps=self.fps)
        content |= dict(width=self.width, height=self.height)
        content |= dict(total_frames=self.total_frames, keyframes=records)
        if self.has_ids:
            content['tubes'] = _list_tubes(records)
        if self.error is not None:
            content['error'] = self.error
        if self.damage:
            content['damage'] = np.round(self.damage, 3).tolist()
        return content

    def to_json(self, path: str | Path) -> None:
        """Write a JSON file."""
        write_json(path, self.to_dict())

    def to_table(self, path: str | Path) -> None:
        """Write a csv with a header and a row per person and action, boxes in pixels.

        A person without an action has one row in which these columns are empty. If
        there are ids, a last column holds them.
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

    def to_csv(self, path: str | Path) -> None:
        """Write AVA's format, a row per person and action, as evaluators read it.

        ``video,timestamp,x1,y1,x2,y2,action_id,score``, boxes in [0, 1], no header.

        Raises:
            UserError: a csv cannot hold the name of the source.
        """
        if set(self.source) & set(',"\n'):
            raise UserError(
                f'{path}: the name {self.source!r} has a comma or a quote, which a csv '
                'cannot hold; rename the video.'
            )
        name, size = without_suffix(Path(self.source).name), self._size
        with open_atomically(path, encoding='utf-8') as file:
            for found in self.keyframes:
                place = f'{name},{found.time_s:.3f}'.rstrip('0').rstrip('.')
                for bbox, actions in zip(found.bboxes, found.actions, strict=True):
                    box = ','.join(f'{value:.6g}' for value in bbox / size)
                    for label, score in actions:
                        number = self._label_id(label)
                        file.write(f'{place},{box},{number},{score:.4f}\n')

    def to_cvat(self, path: str | Path) -> None:
        """Write "CVAT for video 1.1", for annotators to correct."""
        write_cvat(path, self._annotated(range(self.total_frames)), self._actions())

    def to_coco(self, path: str | Path) -> None:
        """Write COCO's JSON with videos, for annotators to correct."""
        frames = sorted({found.frame_index for found in self._within})
        write_coco(path, self._annotated(frames), self._actions())

    def to_datasamples(self) -> list[ActionDataSample]:
        """mmaction2's data samples, one of each keyframe.

        ``pred_instances`` have ``bboxes`` (n, 4) in pixels, ``scores`` (n, A + 1) with
        the host's dummy column 0 and 0 for actions that are left out, and, where known,
        ``person_scores`` (n,), ``instances_id`` (n,) and ``masks`` (n, h, w).
        """
        return [self._datasample(found) for found in self.keyframes]

    def _datasample(self, found: KeyframeDetections) -> ActionDataSample:
        places = [
            (row, self._label_id(label), score)
            for row, actions in enumerate(found.actions)
            for label, score in actions
        ]
        columns = [len(self.classes or ()), *(column for _, column, _ in places)]
        scores = np.zeros((len(found.bboxes), 1 + max(columns)), np.float32)
        for row, column, score in places:
            scores[row, column] = score
        instances = InstanceData(bboxes=torch.as_tensor(found.bboxes))
        instances.scores = torch.as_tensor(scores)
        if found.person_scores is not None:
            instances.person_scores = torch.as_tensor(found.person_scores)
        if found.ids is not None:
            instances.instances_id = torch.tensor(found.ids, dtype=torch.long)
        if found.masks is not None:
            size = self.height, self.width
            drawn = [decode(mask).astype(bool) for mask in found.masks]
            instances.masks = torch.from_numpy(np.array(drawn).reshape(-1, *size))
        sample = ActionDataSample(
            metainfo=dict(
                video_id=self.source,
                timestamp=found.time_s,
                frame_index=found.frame_index,
                ori_shape=(self.height, self.width),
            )
        )
        sample.pred_instances = instances
        return sample

    def plot(self, number: int = 0, picture: np.ndarray | None = None) -> np.ndarray:
        """Draw what was found at a keyframe.

        Args:
            number: Of the keyframe, from 0.
            picture: RGB uint8 (h, w, 3); by default it is read from the video file.

        Returns:
            RGB uint8, of :data:`.MIN_SIDE` pixels at least on its short side.

        Raises:
            UserError: the source is not a video file that can be read again, or ends
                before a keyframe that was foretold.
        """
        found = self.keyframes[number]
        if picture is None and found.frame_index >= self.total_frames > 0:
            raise UserError(
                f'{self.source} ends before {found.time_s:g} s, for which keyframe '
                f'{number} was foretold; give a picture.'
            )
        if picture is None:
            if not os.path.isfile(self.source):
                raise UserError(
                    f'The frames of {self.source} are gone; give a picture.'
                )
            (picture,) = open_video(self.source).get_batch([found.frame_index])
        picture, factor = enlarge(picture)
        ids = range(len(found.bboxes)) if found.ids is None else found.ids
        return draw_detections(
            picture,
            found.bboxes * factor,
            found.actions,
            colors=person_colors(ids),
            masks=found.masks and [decode(mask) for mask in found.masks],
        )

    @property
    def _size(self) -> tuple[int, int, int, int]:
        return self.width, self.height, self.width, self.height

    def _label_id(self, label: str) -> int:
        if label in (self.classes or ()):
            return self.classes.index(label) + 1
        return int(label.removeprefix('action '))

    def _actions(self) -> tuple[str, ...]:
        done = {label for one in self.keyframes for p in one.actions for label, _ in p}
        return self.classes or tuple(sorted(done))

    @property
    def _within(self) -> list[KeyframeDetections]:
        """The keyframes, without those foretold for after the video's end."""
        return [
            found
            for found in self.keyframes
            if not found.ahead_s or found.frame_index < self.total_frames
        ]

    def _annotated(self, frames: Sequence[int]) -> AnnotatedVideo:
        """Persons with ids as tracks, every other person as a track of its own."""
        tracks: dict[object, list[Shape]] = {}
        keyframes = self._within
        for number, found in enumerate(keyframes):
            ids = found.ids or [(number, row) for row in range(len(found.bboxes))]
            here = set()
            masks = found.masks or [None] * len(found.bboxes)
            for key, bbox, actions, mask in zip(
                ids, found.bboxes, found.actions, masks, strict=True
            ):
                shape = Shape(
                    frame=found.frame_index,
                    bbox=tuple(map(float, bbox)),
                    actions=tuple(label for label, _ in actions),
                    outside=False,
                    place='',
                    segmentation=mask,
                )
                tracks.setdefault(key, []).append(shape)
                here.add(key)
            for key, track in tracks.items():
                if key not in here and not track[-1].outside:
                    left = dict(frame=found.frame_index, outside=True)
                    track.append(track[-1]._replace(**left))
        after = keyframes[-1].frame_index + 1 if keyframes else 0
        for track in tracks.values():
            if not track[-1].outside and after < self.total_frames:
                track.append(track[-1]._replace(frame=after, outside=True))
        return AnnotatedVideo(
            file='',
            names=[Path(self.source).name],
            size=(self.width, self.height),
            fps=self.fps,
            frames=frames,
            tracks=list(tracks.values()),
        )

    def save(self, path: str | Path) -> None:
        """Write JSON or the table, by the suffix of the file."""
        write = self.to_json if Path(path).suffix.lower() == '.json' else self.to_table
        write(path)


def keyframe_record(found: KeyframeDetections) -> dict:
    """What the JSON holds of a keyframe."""
    record = dict(time_s=round(found.time_s, 3), frame=found.frame_index)
    if found.ahead_s:
        record['ahead_s'] = round(found.ahead_s, 3)
    return record | dict(persons=list(_list_persons(found)))


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
        if found.masks is not None:
            person['mask'] = found.masks[index]
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
