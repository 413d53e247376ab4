"""Frame mAP of keyframe detections, as AVA defines it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stmixer_mm.datasets.annotations.ava_csv import (
    KeyframeRow,
    keyframe_key,
    raise_first,
    read_classes,
    read_keyframe_rows,
    read_timestamp_keys,
)
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.functional.average_precision import by_score, over_thresholds
from stmixer_mm.evaluation.functional.matching import Boxes, take
from stmixer_mm.evaluation.functional.protocols import KEYFRAME_PROTOCOLS, Protocol
from stmixer_mm.evaluation.metrics.detection_metric import (
    IGNORED,
    WRONG,
    DetectionMetric,
    Matched,
)
from stmixer_mm.evaluation.metrics.predictions import (
    Detections,
    Instances,
    join_detections,
)
from stmixer_mm.registry import METRICS

PERSON = 0  # score column of a box alone: the dummy class of the host


@METRICS.register_module()
class FrameMAPMetric(DetectionMetric):
    """Frame mAP: AP of each action over all keyframes, averaged over actions.

    Predictions are ``pred_instances`` with ``bboxes`` (n, 4) xyxy in [0, 1] and
    ``scores`` (n, num_classes) in [0, 1], column 0 the dummy. Of tubelets, ``bboxes``
    (n, K, 4) with ``person_scores`` (n, K), entry K // 2 is the keyframe, and scores
    there are those of the tubelet times its person score. Evaluated are the
    actions that the label file names and that have ground truth. The protocol decides in
    which keyframes detections count.

    With ``protocol='mmaction2'`` it equals the host's ``AVAMetric`` where no keyframe
    is excluded and scores are not rounded to 4 digits. The host counts excluded
    ground truth as missed.

    Values: ``overall`` (mAP), ``person_AP`` (boxes alone, scored by their best
    action), ``person_recall`` (boxes found at any score), all at the first IoU
    threshold, with ``@thr`` at the others; the AP of each action by its name at the
    first. All lie in [0, 1].

    Args:
        ann_file: AVA csv file of the ground truth, or several, whose lines count
            together, for datasets of several parts.
        label_file: Label map (pbtxt) of the evaluated actions; None evaluates all.
        exclude_file: Keyframes to leave out, lines of video_id,timestamp; one file or
            several.
        empty_keyframes_file: Keyframes known to show no person, lines of
            video_id,timestamp; every detection there is a false one, whatever the
            protocol. One file or several.
        own_videos: Detections in videos that ann_file lacks do not count, whatever the
            protocol: for one part of a dataset of several.
        num_classes: Classes with the dummy class 0; None: those of label_file.
        protocol: ``'ava'``, by which detections in keyframes that ann_file lacks are
            wrong, ``'ava2020'``, by which they do not count, or ``'mmaction2'`` for the
            host's, see ``KEYFRAME_PROTOCOLS``; or a record, see ``parse_protocol``.
        max_actions: Detections that count in a keyframe, the best ones of all
            evaluated actions; 50 in AVA's get_ava_performance.py, None (no limit) in
            the copies of it that papers use.
        shared: Arguments of :class:`DetectionMetric`.
    """

    default_prefix = 'mAP'
    protocols = KEYFRAME_PROTOCOLS
    model_score_thr = 0.002
    further_columns = (PERSON,)
    unit = 'boxes'

    def __init__(
        self,
        ann_file: str | Sequence[str],
        label_file: str | None = None,
        *,
        exclude_file: str | Sequence[str] | None = None,
        empty_keyframes_file: str | Sequence[str] | None = None,
        own_videos: bool = False,
        num_classes: int | None = None,
        protocol: str | Protocol | Mapping = 'ava',
        max_actions: int | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(protocol=protocol, **shared)
        self.max_actions = max_actions
        label_file = next(iter(self._paths(label_file)), None)
        num_classes, names = read_classes(label_file, num_classes)
        names = names or {number: f'class {number}' for number in range(1, num_classes)}
        self._set_classes(names, num_classes)
        self._excluded = self._read_keys(exclude_file)
        rows = []
        for file in self._paths(ann_file):
            file_rows, faults = read_keyframe_rows(file, num_classes=num_classes)
            raise_first(faults)
            rows += file_rows
        self._videos = {row.video_id for row in rows} if own_videos else None
        empty_keys = self._read_keys(empty_keyframes_file) - self._excluded
        self._set_ground_truth(rows, empty_keys, source=ann_file)

    def _read_keys(self, files: str | Sequence[str] | None) -> set[str]:
        return set().union(*map(read_timestamp_keys, self._paths(files)))

    def _set_ground_truth(
        self, rows: Sequence[KeyframeRow], empty_keys: set[str], *, source: object
    ) -> None:
        # A detection on two ground truths alike claims that of the higher person id:
        # AVA's evaluator takes the last column for scores, and sorts by them.
        rows = sorted(rows, key=lambda row: (row.key, -row.person_id))
        rows = [row for row in rows if row.key not in self._excluded]
        evaluated = [row for row in rows if row.action_id in self.class_names]
        if not evaluated:
            raise UserError(
                f'{source} has no annotation to evaluate; check that label_file and '
                'exclude_file belong to it.'
            )
        named = evaluated if self.protocol.frames == 'evaluated' else rows
        keys = {row.key for row in named} | empty_keys
        self.frame_numbers = {key: number for number, key in enumerate(sorted(keys))}
        self._gts = self._boxes(evaluated)
        self._gt_columns = np.array([row.action_id for row in evaluated])
        # Persons count whatever they do, each box of a keyframe once.
        persons = self._boxes([row for row in rows if row.key in self.frame_numbers])
        boxes = np.column_stack([persons.frames, persons.bboxes])
        _, first = np.unique(boxes, axis=0, return_index=True)
        self._gt_persons = take(persons, np.sort(first))

    def _boxes(self, rows: Sequence[KeyframeRow]) -> Boxes:
        """Ground truth by keyframe, of rows by keyframe."""
        frames = np.array([self.frame_numbers[row.key] for row in rows])
        bboxes = np.array([row.bbox_norm for row in rows])
        return Boxes(frames, bboxes, np.ones(len(rows)))

    def values(self, matched: Mapping[int, Matched]) -> dict[str, float]:
        return {**super().values(matched), **self._person_values(matched[PERSON])}

    def _join(self, parts: list[dict]) -> Detections:
        predicted = {part['key'] for part in parts}
        self._compare(predicted, self.frame_numbers)
        numbers = dict(self.frame_numbers)
        for key in sorted(predicted - numbers.keys()):
            if self.effect(key) == WRONG:
                numbers[key] = len(numbers)
        by_frame = {numbers[p['key']]: p for p in parts if p['key'] in numbers}
        # Detections of equal score count in this order, whichever rank found them.
        frames = sorted(by_frame)
        parts = [by_frame[frame] for frame in frames]
        return join_detections(frames, parts, tuple(numbers).__getitem__)

    def gt_boxes(self, column: int) -> Boxes:
        if column == PERSON:
            return self._gt_persons
        return take(self._gts, self._gt_columns == column)

    def effect(self, key: str) -> str | None:
        is_own = self._videos is None or key.rpartition(',')[0] in self._videos
        if key in self.frame_numbers or not is_own:
            return None
        all_count = self.protocol.frames == 'all' and key not in self._excluded
        return WRONG if all_count else IGNORED

    def _split(
        self, sample: dict, instances: Instances
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        key = keyframe_key(sample['video_id'], sample['timestamp'])
        bboxes, scores = instances.at(instances.bboxes.shape[1] // 2)
        actions = scores[:, 1:]
        yield key, bboxes, np.column_stack([actions.max(axis=1, initial=0), actions])

    def _counted(self, bboxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        counted = super()._counted(bboxes, scores)
        if self.max_actions is not None:
            flat = np.flatnonzero(counted)
            surplus = by_score(scores.flat[flat])[self.max_actions :]
            counted.flat[flat[surplus]] = False
        counted[:, PERSON] = True  # at any score
        if self.protocol.drop_empty_boxes:
            low, high = np.hsplit(bboxes, 2)
            counted &= (high > low).all(axis=1, keepdims=True)
        return counted

    def value_name(self, name: str, thr: str) -> str:
        return name if thr == next(iter(self.iou_thrs)) else f'{name}@{thr}'

    def _person_values(self, matched: Matched) -> dict[str, float]:
        """Localisation alone: all boxes of a keyframe, whatever they do."""

        def recall(thr: float) -> float:
            return self.right(matched, thr).sum() / matched.num_gts

        return {
            **self._at_thrs('person_AP', self._aps(matched)),
            **self._at_thrs('person_recall', over_thresholds(recall, self.iou_thrs)),
        }
