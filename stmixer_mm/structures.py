"""Presence states, decoder outputs, and the records of results.

Shapes: B clips, Q queries, C channels, A actions, T frames of the feature maps.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from stmixer_mm.errors import blame
from stmixer_mm.files import check_file, check_no_input
from stmixer_mm.pictures import Mask, decode
from stmixer_mm.records import entry, from_plain, to_plain
from stmixer_mm.registry import RESULT_FORMATS, result_writer

# States of a person in a frame: has a box there, is not there, is not annotated there.
PRESENT, ABSENT, UNKNOWN = 1, 0, -1
PRESENCE = 0.5  # lowest person score of a tubelet in frames that show the person
LAST = slice(-1, None)  # of the stages


class Queries(NamedTuple):
    """The two query sets; query i of both belongs to box i."""

    spatial: Tensor  # (B, Q, C), of tubelets (B * T, Q, C)
    temporal: Tensor  # (B, Q, C)


class StageOutput(NamedTuple):
    """Predictions of one stage, per query."""

    person_logits: Tensor  # (B, Q, 2): person, background
    action_logits: Tensor  # (B, Q, A)
    bboxes: Tensor  # (B, Q, 4): pixel xyxy, refined by this stage


class TubeletStageOutput(NamedTuple):
    """Predictions of one stage, per tubelet: a person through the frames of a clip."""

    person_logits: Tensor  # (B, Q, T, 2): person, background
    action_logits: Tensor  # (B, Q, A), or in each frame (B, Q, T, A)
    bboxes: Tensor  # (B, Q, T, 4): pixel xyxy, refined by this stage


class DecoderOutput(NamedTuple):
    """Predictions of stages, and what the last one leaves."""

    # Of the stages that are needed: all of them in training, the last one otherwise.
    stages: list[StageOutput | TubeletStageOutput]
    queries: Queries
    boxes_xyzr: Tensor  # (B, Q, 4), of tubelets (B * T, Q, 4)

    def take(self, which: slice) -> 'DecoderOutput':
        """Some of the queries."""
        return DecoderOutput(
            [
                type(stage)(*(values[:, which] for values in stage))
                for stage in self.stages
            ],
            Queries(*(values[:, which] for values in self.queries)),
            self.boxes_xyzr[:, which],
        )


def _count(doc: str = '', **options: object) -> Any:
    """A field that is 0 or more."""
    return entry(doc, schema=dict(minimum=0), **options)


def _score(doc: str = '', **options: object) -> Any:
    """A field in [0, 1]."""
    return entry(doc, digits=4, schema=dict(minimum=0, maximum=1), **options)


@dataclass
class Action:
    """An action of a person."""

    action: str = entry('Its name.')
    score: float = _score()
    label: int | None = entry(hidden=True, default=None)  # id, from 1; None: unknown


def top_actions(
    scores: np.ndarray, classes: Sequence[str] | None, score_thr: float
) -> list[Action]:
    """The actions of one box, highest score first, from ``score_thr`` upwards.

    Args:
        scores: (num_classes,), entry 0 is the dummy.
        classes: ``classes[i]`` names label id ``i + 1``.
        score_thr: Lowest score.
    """
    names = dict(enumerate(classes or (), start=1))
    order = 1 + np.argsort(-scores[1:], kind='stable')
    return [
        Action(names.get(label, f'action {label}'), float(scores[label]), label)
        for label in order.tolist()
        if scores[label] >= score_thr
    ]


@dataclass(kw_only=True)
class Person:
    """A person in a keyframe."""

    id: int | None = entry('Of its tube or track.', default=None)
    bbox: tuple[float, float, float, float] = entry(
        'x1, y1, x2, y2 in pixels of the video.', digits=2
    )
    score: float | None = _score('That it is a person, whatever it does.', default=None)
    actions: list[Action] = entry('Highest score first.')
    mask: Mask | None = entry(
        "COCO's compressed RLE, of the size (height, width) of the video; if the "
        'model predicts masks.',
        default=None,
    )


@dataclass(kw_only=True)
class Keyframe:
    """The persons at a keyframe of a video; with tubelets, in any frame."""

    time_s: float = entry(
        "Seconds from the first frame, or of the stream's own clock.", digits=3
    )
    frame_index: int = _count('Number of the frame, from 0.', key='frame')
    ahead_s: float | None = entry(
        'If the keyframe was predicted ahead: seconds from the last frame seen to '
        'time_s. Its frame may then be after the last one of the video.',
        digits=3,
        schema=dict(exclusiveMinimum=0),
        default=None,
    )
    persons: list[Person] = entry()

    @property
    def bboxes(self) -> np.ndarray:
        """(n, 4) pixel xyxy."""
        return np.reshape([person.bbox for person in self.persons], (-1, 4))

    @property
    def actions(self) -> list[list[tuple[str, float]]]:
        """Per person (name, score), highest score first."""
        return [
            [(action.action, action.score) for action in person.actions]
            for person in self.persons
        ]

    @property
    def ids(self) -> list[int] | None:
        """Per person; None if they have none."""
        return self._each('id')

    @property
    def person_scores(self) -> list[float] | None:
        """Per person; None if they have none."""
        return self._each('score')

    @property
    def masks(self) -> list[Mask] | None:
        """Per person; None if they have none."""
        return self._each('mask')

    def _each(self, name: str) -> list | None:
        values = [getattr(person, name) for person in self.persons]
        return None if None in values else values

    def to_supervision(self):
        """The persons as ``supervision.Detections``, for its annotators and trackers.

        ``confidence``, ``class_id`` and ``data['class_name']`` are of the highest-scoring
        action; without one of the person, -1 and ''. ``data`` has the persons, too.
        """
        import supervision

        best = [
            person.actions[0] if person.actions else Action('', person.score or 0.0)
            for person in self.persons
        ]
        labels = [-1 if action.label is None else action.label for action in best]
        persons = np.empty(len(best), object)
        persons[:] = self.persons
        return supervision.Detections(
            xyxy=self.bboxes.astype(float),
            mask=np.array([*map(decode, self.masks)], bool) if self.masks else None,
            confidence=np.array([action.score for action in best], float),
            class_id=np.array(labels, int),
            tracker_id=np.array(self.ids, int) if self.ids else None,
            data=dict(
                class_name=np.array([action.action for action in best], str),
                persons=persons,
            ),
        )

    @classmethod
    def from_supervision(
        cls, detections, *, time_s: float = 0.0, frame_index: int = 0
    ) -> 'Keyframe':
        """Persons of :meth:`to_supervision`, or of another detector, without actions.

        Args:
            detections: ``supervision.Detections`` of persons; its boxes, and the ids of
                a tracker, count.
            time_s: Seconds from the first frame.
            frame_index: Number of the frame, from 0.
        """
        scores, ids = detections.confidence, detections.tracker_id
        persons = detections.data.get('persons')
        if persons is None:
            persons = [
                Person(bbox=(), score=None if scores is None else scores[i], actions=[])
                for i in range(len(detections))
            ]
        keyframe = cls(
            time_s=time_s,
            frame_index=frame_index,
            persons=[
                replace(person, bbox=tuple(bbox))
                for person, bbox in zip(persons, detections.xyxy.tolist(), strict=True)
            ],
        )
        return keyframe if ids is None else keyframe.with_ids(ids.tolist())

    def with_ids(self, ids: Iterable[int]) -> 'Keyframe':
        """A copy whose persons have these ids."""
        pairs = zip(self.persons, ids, strict=True)
        return replace(
            self, persons=[replace(person, id=number) for person, number in pairs]
        )


@dataclass(kw_only=True)
class TubeAction:
    """A stretch of a tube in which an action was found."""

    action: str = entry('Its name.')
    score: float = _score('The mean in its keyframes.')
    first_frame: int = _count()
    last_frame: int = _count()


@dataclass(kw_only=True)
class Tube:
    """A person from the first to the last frame where it was found."""

    id: int = entry()
    first_frame: int = _count()
    last_frame: int = _count()
    actions: list[TubeAction] = entry()


@dataclass(kw_only=True)
class VideoDetections:
    """Persons and their actions in a whole video or stream."""

    version: int = entry(default=1, schema=dict(const=1))
    source: str = entry('Path, URL or name of the source.', key='video')
    num_bytes: int | None = _count(
        'Size of its files, if tools/detect.py read it.', default=None
    )
    mtime: float | None = entry(
        'When they were last changed, in seconds since 1970.', digits=3, default=None
    )
    made_with: str | None = entry(
        'Digest of the model and the options, if tools/detect.py made it.',
        default=None,
    )
    fps: float = _count('Mean frame rate; 0 if it did not open.', default=0.0)
    width: int = _count('Of its frames, in square pixels.', default=0)
    height: int = _count(default=0)
    pixel_aspect: float | None = entry(
        'Width of the pixels in the file by their height, if they are not square; boxes '
        'and drawn copies have square pixels.',
        digits=6,
        default=None,
    )
    total_frames: int = _count('As far as it was read.', default=0)
    keyframes: list[Keyframe] = entry(
        'In order of time; with tubelets all frames.', default_factory=list
    )
    tubes: list[Tube] | None = entry(
        'If persons have ids: in the order in which they begin.', default=None
    )
    error: str | None = entry(
        'Why there is no more of it; absent if it was read to its end.', default=None
    )
    damage: list[tuple[float, float]] | None = entry(
        '(first, last) seconds of what was left out because it cannot be decoded.',
        digits=3,
        default=None,
    )
    damage_reasons: list[str] | None = entry(
        'Why, in a sentence for each part; at most ten.', default=None
    )
    # Names of the label ids 1, 2, …; None: unknown.
    classes: tuple[str, ...] | None = entry(hidden=True, default=None)

    def to_dict(self) -> dict:
        """The content of the JSON file, see docs/detections.schema.json."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, content: dict) -> 'VideoDetections':
        return from_plain(cls, content)

    @classmethod
    def load(cls, path: str | Path) -> 'VideoDetections':
        """Read a JSON file.

        Raises:
            UserError: it is missing, or is no such file.
        """
        check_file(path)
        with blame(f'{path} is no JSON file of detections', 'write it anew'):
            return cls.from_dict(json.loads(Path(path).read_bytes()))

    def rows(self) -> list[dict]:
        """A row for each action of a person in a keyframe, boxes in pixels.

        A person without an action has one row, in which it is None. ``id`` is there if
        persons have ids.
        """
        content, rows = self.to_dict(), []
        for keyframe in content['keyframes']:
            place = dict(
                video=self.source, time_s=keyframe['time_s'], frame=keyframe['frame']
            )
            for person in keyframe['persons']:
                box = dict(zip(('x1', 'y1', 'x2', 'y2'), person['bbox'], strict=True))
                ids = {} if self.tubes is None else dict(id=person['id'])
                for done in person['actions'] or [dict(action=None, score=None)]:
                    rows.append({**place, **box, **done, **ids})
        return rows

    def to_dataframe(self):
        """A ``pandas.DataFrame`` of :meth:`rows`."""
        import pandas

        return pandas.DataFrame(self.rows())

    def plot_timeline(self, path: str | Path | None = None):
        """Draw who does what when, see :func:`.visualization.timeline.plot_timeline`.

        Returns:
            A ``matplotlib`` figure, written to ``path`` if that is given.
        """
        return RESULT_FORMATS['timeline'](self, path)

    def save(self, path: str | Path, form: str | None = None) -> None:
        """Write a file.

        Args:
            path: The file.
            form: One of ``RESULT_FORMATS``; by default that of the suffix.

        Raises:
            UserError: there is no such format, it cannot express the detections, or
                ``path`` is the source or in no folder.
        """
        check_no_input([path], [self.source], purpose='The file')
        write = result_writer(path, form)
        with blame(f'{path} cannot be written', 'choose a file in another folder'):
            write(self, Path(path))
