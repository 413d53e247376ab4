"""Keyframes of videos, annotated in AVA's format."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from stmixer_mm.datasets.annotations.ava_csv import (
    Fault,
    KeyframeRow,
    raise_first,
    read_classes,
    read_keyframe_rows,
    read_timestamp_rows,
)
from stmixer_mm.datasets.person_dataset import PersonDataset, join_root
from stmixer_mm.datasets.persons import make_persons
from stmixer_mm.registry import DATASETS


@DATASETS.register_module()
class KeyframeDataset(PersonDataset):
    """Keyframes with person boxes and their actions, from an AVA csv file.

    Samples are like those of the host's ``AVADataset``. Unlike it, this class takes
    videos that start at 0 s and have their own frame rate, fractional timestamps, and
    keyframes without persons. Action ids within num_classes that the label file lacks
    are trained (AVA's label file of the 60 evaluated classes goes with annotations of
    all 80).

    Args:
        ann_file: AVA csv file: video_id,timestamp,x1,y1,x2,y2,action_id,person_id.
        label_file: Label map (pbtxt); gives ``metainfo['classes']``, the names of the
            columns 1, 2, ... of the labels.
        exclude_file: Keyframes to leave out, lines of video_id,timestamp.
        empty_keyframes_file: Keyframes known to show no person, lines of
            video_id,timestamp; those that ann_file lacks are added with k = 0.
        num_classes: Classes with the dummy class 0; None: one more than the largest id
            of the label file.
        fps: Frame rate of the extracted frames; videos know their own.
        timestamp_start: Timestamp of a video's first frame in seconds: 900 for AVA.
        shared: Arguments of :class:`PersonDataset`, as are those not listed here.

    Raises:
        UserError: a file, video or frame folder is missing, a line is faulty, classes
            do not fit, or no keyframe is left.
    """

    def __init__(
        self,
        ann_file: str,
        pipeline: Sequence[dict | Callable],
        *,
        label_file: str | None = None,
        exclude_file: str | None = None,
        empty_keyframes_file: str | None = None,
        num_classes: int | None = None,
        data_root: str | None = '',
        fps: float = 30,
        timestamp_start: float = 0,
        metainfo: Mapping | None = None,
        **shared,
    ) -> None:
        self.label_file = join_root(data_root, label_file)
        self.exclude_file = join_root(data_root, exclude_file)
        self.empty_keyframes_file = join_root(data_root, empty_keyframes_file)
        self.fps = fps
        self.timestamp_start = timestamp_start
        num_classes, names = read_classes(self.label_file, num_classes)
        classes = tuple(names.get(n, f'class {n}') for n in range(1, num_classes))
        super().__init__(
            ann_file,
            pipeline,
            num_classes=num_classes,
            data_root=data_root,
            metainfo={'classes': classes, **(metainfo or {})},
            **shared,
        )

    def read_rows(self) -> tuple[list[KeyframeRow], list[Fault]]:
        """All good rows and all faults of the annotation file."""
        return read_keyframe_rows(self.ann_file, num_classes=self.num_classes)

    def person_key(self, row: KeyframeRow) -> Hashable:
        """Equal for all rows of one person in a keyframe."""
        return row.bbox_norm

    def load_data_list(self) -> list[dict]:
        """All keyframes of the annotation file, then those without a person."""
        rows, faults = self.read_rows()
        empty, faults_of_empty = read_timestamp_rows(self.empty_keyframes_file)
        self._refuse(faults + faults_of_empty)
        keyframes: dict[str, list[KeyframeRow]] = {}
        for row in (*rows, *empty):
            keyframes.setdefault(row.key, []).append(row)
        infos = [self._info(group) for group in keyframes.values()]
        paths = self.find_sources(dict.fromkeys(info['video_id'] for info in infos))
        return [
            {**info, self.path_key: paths[info['video_id']]}
            for info in infos
            if info['video_id'] in paths
        ]

    def _refuse(self, faults: list[Fault]) -> None:
        if not self.skips_faults:
            raise_first(faults)

    def filter_data(self) -> list[dict]:
        """Leave out the keyframes of the exclude file."""
        rows, faults = read_timestamp_rows(self.exclude_file)
        self._refuse(faults)
        excluded = {row.key for row in rows}
        self.data_list = [
            keyframe
            for keyframe in self.data_list
            if keyframe['img_key'] not in excluded
        ]
        return super().filter_data()

    def get_data_info(self, idx: int) -> dict:
        """The sample that the pipeline gets."""
        info = super().get_data_info(idx)
        return {**info, 'fps': self.fps, 'timestamp_start': self.timestamp_start}

    def _info(self, rows: Sequence[KeyframeRow]) -> dict:
        """A keyframe of its rows; one of a timestamp file is no person."""
        keyframe, persons = rows[0], {}
        for row in rows:
            if row.bbox_norm:
                persons.setdefault(self.person_key(row), []).append(row)
        labels = np.zeros((len(persons), self.num_classes), dtype=bool)
        for label, group in zip(labels, persons.values(), strict=True):
            label[[row.action_id for row in group]] = True
        first = [group[0] for group in persons.values()]
        bboxes_norm = np.reshape([row.bbox_norm for row in first], (-1, 4))
        ids = [row.person_id for row in first]
        return {
            'video_id': keyframe.video_id,
            'timestamp': keyframe.timestamp,
            'img_key': keyframe.key,
            'ann': make_persons(keyframe.timestamp, bboxes_norm, labels, ids).tobytes(),
        }
