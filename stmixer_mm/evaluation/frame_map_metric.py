"""Frame mAP of keyframe detections, as AVA defines it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from stmixer_mm.datasets.ava_csv import (
    check_custom_classes,
    keyframe_key,
    raise_first,
    read_keyframe_rows,
    read_label_names,
    read_timestamp_keys,
)
from stmixer_mm.registry import METRICS

from .average_precision import AP_MODES, CLASS_AVERAGES, check_choice, class_mean
from .frame_map import BestMatch, Boxes, average_precision, best_matches, recall
from .predictions import join_field, select_actions


class _Actions(NamedTuple):
    """Detected actions, sorted by class."""

    box: np.ndarray  # (N,) which of all persons
    classes: np.ndarray  # (N,)
    scores: np.ndarray  # (N,)

    def of(self, column: int, persons: Boxes) -> Boxes:
        start = np.searchsorted(self.classes, column, side='left')
        stop = np.searchsorted(self.classes, column, side='right')
        box = self.box[start:stop]
        return Boxes(persons.frames[box], persons.bboxes[box], self.scores[start:stop])


@METRICS.register_module()
class FrameMAPMetric(BaseMetric):
    """Frame mAP: AP of each action over all keyframes, averaged over actions.

    Predictions are ``pred_instances`` with ``bboxes`` (n, 4) xyxy in [0, 1] and
    ``scores`` (n, num_classes) in [0, 1], column 0 the dummy. Evaluated are the
    actions that the label file names and that have ground truth. Keyframes without
    such ground truth do not count, as in AVA, unless they are named person-free.

    It equals the host's ``AVAMetric`` where all evaluated actions have detections and
    ground truth, no keyframe is excluded, and scores are not rounded to 4 digits. The
    host leaves out actions without any detection, and counts excluded ground truth
    as missed.

    Values: ``overall`` (mAP), ``person_AP`` (boxes alone, scored by their best
    action), ``person_recall`` (boxes found at any score), all at the first IoU
    threshold, with ``@thr`` at the others; the AP of each action by its name at the
    first. All lie in [0, 1].

    Args:
        ann_file: AVA csv file of the ground truth.
        label_file: Label map (pbtxt) of the evaluated actions; None evaluates all.
        exclude_file: Keyframes to leave out, lines of video_id,timestamp.
        empty_keyframes_file: Keyframes known to show no person, lines of
            video_id,timestamp; every detection there is a false one.
        num_classes: Classes with the dummy class 0.
        custom_classes: Action ids of the score columns 1, 2, ...; None: 1, 2, ....
        score_thr: Scores up to it do not count as detections.
        iou_thrs: IoU thresholds, the main one first.
        ap_mode: Area under precision and recall, ``'interpolated'`` (AVA, Pascal VOC)
            or ``'act'`` (the action tubelet detector's), see ``AP_MODES``.
        class_average: Classes that the mean is over, ``'truth'`` (AVA), ``'detected'``
            (the host) or ``'all'``, see ``CLASS_AVERAGES``.
        per_class: Return and log the AP of each action too.
        collect_device, prefix, collect_dir: As in mmengine's ``BaseMetric``.

    Raises:
        FileNotFoundError, ValueError: a file is missing or faulty, nothing can be
            evaluated, or predictions have another number of classes.
    """

    default_prefix = 'mAP'

    def __init__(
        self,
        ann_file: str,
        label_file: str | None = None,
        *,
        exclude_file: str | None = None,
        empty_keyframes_file: str | None = None,
        num_classes: int = 81,
        custom_classes: Sequence[int] | None = None,
        score_thr: float = 0.002,
        iou_thrs: Sequence[float] = (0.5,),
        ap_mode: str = 'interpolated',
        class_average: str = 'truth',
        per_class: bool = True,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        if not iou_thrs or not all(0 < thr <= 1 for thr in iou_thrs):
            raise ValueError(f'iou_thrs={iou_thrs} must be numbers in (0, 1].')
        check_choice('ap_mode', ap_mode, AP_MODES)
        check_choice('class_average', class_average, CLASS_AVERAGES)
        names = read_label_names(
            label_file, num_classes=None if custom_classes else num_classes
        )
        if custom_classes is not None:
            check_custom_classes(custom_classes, names, num_classes)
        action_ids = list(custom_classes or range(1, num_classes))
        self.num_classes = num_classes
        self.score_thr = score_thr
        self.iou_thrs = tuple(iou_thrs)
        self.ap_mode = ap_mode
        self.class_average = class_average
        self.per_class = per_class
        # Score column -> name of each evaluated action.
        self.class_names = {
            column: names.get(action_id, f'class {action_id}')
            for column, action_id in enumerate(action_ids, start=1)
            if not names or action_id in names
        }
        columns = {action_ids[column - 1]: column for column in self.class_names}

        rows, faults = read_keyframe_rows(
            ann_file, num_classes=None if custom_classes else num_classes
        )
        raise_first(faults)
        excluded = read_timestamp_keys(exclude_file)
        rows = [r for r in rows if r.action_id in columns and r.key not in excluded]
        if not rows:
            raise ValueError(
                f'{ann_file} holds no annotation to evaluate; check that label_file, '
                'custom_classes and exclude_file belong to it.'
            )
        rows.sort(key=lambda row: row.key)
        annotated = dict.fromkeys(row.key for row in rows)
        empty = sorted(read_timestamp_keys(empty_keyframes_file) - excluded)
        wrong = next((key for key in empty if key in annotated), None)
        if wrong is not None:
            raise ValueError(
                f'{empty_keyframes_file}: keyframe {wrong} is listed as person-free, '
                f'but {ann_file} has a box there; remove one of them.'
            )
        self._frame_numbers = {key: n for n, key in enumerate((*annotated, *empty))}
        frames = np.array([self._frame_numbers[row.key] for row in rows])
        bboxes = np.array([row.bbox_norm for row in rows])
        self._truths = Boxes(frames, bboxes, np.ones(len(rows)))
        self._truth_classes = np.array([columns[row.action_id] for row in rows])

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep the detections of a batch, those above score_thr of each class."""
        for sample in data_samples:
            result = select_actions(sample, self.num_classes, self.score_thr)
            result['key'] = keyframe_key(sample['video_id'], sample['timestamp'])
            scores = result.pop('scores')
            result['person_scores'] = scores[:, 1:].max(axis=1, initial=0)
            self.results.append(result)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """All values over the collected detections."""
        # Samplers may repeat a keyframe; it counts once.
        known = self._frame_numbers
        by_frame = {known[r['key']]: r for r in results if r['key'] in known}
        # Detections of equal score count in this order, whichever rank found them.
        by_frame = dict(sorted(by_frame.items()))
        missed = len(known) - len(by_frame)
        logger = MMLogger.get_current_instance()
        if missed:
            logger.warning(
                f'{missed} of the {len(known)} keyframes to evaluate have no '
                'prediction and count as missed.'
            )
        persons, actions = _flatten(by_frame)
        values = self._person_values(persons)
        table = {}
        for column in self.class_names:
            truths = _take(self._truths, self._truth_classes == column)
            detections = actions.of(column, persons)
            matches = best_matches(detections, truths)
            num_truths = len(truths.frames)
            aps = [self._ap(detections, matches, num_truths, t) for t in self.iou_thrs]
            table[column] = (num_truths, len(detections.scores), aps)
        counts, detected, all_aps = map(np.array, zip(*table.values(), strict=True))
        all_means = class_mean(all_aps, counts, detected, over=self.class_average)
        means = {
            _at('overall', thr, self.iou_thrs): float(mean)
            for thr, mean in zip(self.iou_thrs, all_means, strict=True)
        }
        if self.per_class:
            logger.info(self._format(table))
            for column, (count, _, aps) in table.items():
                if count:
                    values[self.class_names[column]] = aps[0]
        return {**means, **values}

    def _person_values(self, persons: Boxes) -> dict[str, float]:
        """Localisation alone: all boxes of a keyframe, whatever they do."""
        truths = _distinct(self._truths)
        matches = best_matches(persons, truths)
        num_truths = len(truths.frames)
        values = {}
        for thr in self.iou_thrs:
            ap = self._ap(persons, matches, num_truths, thr)
            values[_at('person_AP', thr, self.iou_thrs)] = ap
            found = recall(matches, num_truths, thr)
            values[_at('person_recall', thr, self.iou_thrs)] = found
        return values

    def _ap(
        self, boxes: Boxes, matches: BestMatch, num_truths: int, thr: float
    ) -> float:
        return average_precision(
            boxes.scores, matches, num_truths, thr, ap_mode=self.ap_mode
        )

    def _format(self, table: dict) -> str:
        width = max(len(name) for name in (*self.class_names.values(), 'action'))
        heads = ''.join(f'{f"AP@{thr:g}":>9}' for thr in self.iou_thrs)
        lines = [f'{"action":<{width}}{"truths":>9}{"detected":>10}{heads}']
        for column, (count, detected, aps) in table.items():
            cells = ''.join(f'{ap:9.4f}' if count else f'{"-":>9}' for ap in aps)
            name = self.class_names[column]
            lines.append(f'{name:<{width}}{count:>9}{detected:>10}{cells}')
        return '\n' + '\n'.join(lines)


def _at(name: str, thr: float, thrs: tuple[float, ...]) -> str:
    return name if thr == thrs[0] else f'{name}@{thr:g}'


def _take(boxes: Boxes, index: np.ndarray) -> Boxes:
    return Boxes(*(field[index] for field in boxes))


def _distinct(truths: Boxes) -> Boxes:
    """Persons instead of their actions: each box of a keyframe once."""
    rows = np.column_stack([truths.frames, truths.bboxes])
    _, first = np.unique(rows, axis=0, return_index=True)
    return _take(truths, np.sort(first))


def _flatten(by_frame: dict[int, dict]) -> tuple[Boxes, _Actions]:
    """All predicted persons, and all that they are said to do."""
    results = list(by_frame.values())

    num_boxes = np.array([len(r['bboxes']) for r in results], dtype=int)
    num_actions = np.array([len(r['box']) for r in results], dtype=int)
    persons = Boxes(
        np.repeat(np.array(list(by_frame), dtype=int), num_boxes),
        join_field(results, 'bboxes', (0, 4), np.float32),
        join_field(results, 'person_scores', (0,), np.float32),
    )
    first_box = (np.cumsum(num_boxes) - num_boxes).astype(np.int32)
    box = join_field(results, 'box', (0,), np.int32) + np.repeat(first_box, num_actions)
    classes = join_field(results, 'class', (0,), np.int16)
    order = np.argsort(classes, kind='stable')
    scores = join_field(results, 'score', (0,), np.float32)
    return persons, _Actions(box[order], classes[order], scores[order])
