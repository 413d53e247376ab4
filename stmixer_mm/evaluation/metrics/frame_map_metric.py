"""Frame mAP of keyframe detections, as AVA defines it."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from mmengine.logging import MMLogger

from stmixer_mm.datasets.annotations.ava_csv import (
    KeyframeRow,
    check_custom_classes,
    keyframe_key,
    raise_first,
    read_keyframe_rows,
    read_label_names,
    read_timestamp_keys,
)
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.functional.average_precision import (
    AP_MODES,
    CLASS_AVERAGES,
    check_choice,
    class_mean,
    over_thresholds,
    parse_iou_thrs,
)
from stmixer_mm.evaluation.functional.frame_map import (
    Boxes,
    average_precision,
    best_of_frames,
    frame_pairs,
    recall,
)
from stmixer_mm.evaluation.functional.matching import BestMatch, best_matches
from stmixer_mm.evaluation.functional.protocols import KEYFRAME_PROTOCOLS
from stmixer_mm.evaluation.metrics.collecting import CollectingMetric
from stmixer_mm.evaluation.metrics.predictions import (
    Actions,
    join_actions,
    join_field,
    select_actions,
)
from stmixer_mm.registry import METRICS


@METRICS.register_module()
class FrameMAPMetric(CollectingMetric):
    """Frame mAP: AP of each action over all keyframes, averaged over actions.

    Predictions are ``pred_instances`` with ``bboxes`` (n, 4) xyxy in [0, 1] and
    ``scores`` (n, num_classes) in [0, 1], column 0 the dummy. Evaluated are the
    actions that the label file names and that have ground truth. Detections in
    keyframes without such ground truth are wrong, as in AVA's evaluator, unless the
    keyframes are excluded.

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
        num_classes: Classes with the dummy class 0.
        custom_classes: Action ids of the score columns 1, 2, ...; None: 1, 2, ....
        score_thr: Scores up to it do not count as detections.
        iou_thrs: IoU thresholds, the main one first; ``'0.5:0.95'`` is the mean over
            a range, see ``parse_iou_thrs``.
        ap_mode: Area under precision and recall, ``'interpolated'`` (AVA, Pascal VOC)
            or ``'act'`` (the action tubelet detector's), see ``AP_MODES``.
        protocol: ``'ava'``, or ``'mmaction2'`` for the host's, see
            ``KEYFRAME_PROTOCOLS``.
        max_actions: Detections that count in a keyframe, the best ones of all
            evaluated actions; 50 in AVA's get_ava_performance.py, None (no limit) in
            the copies of it that papers use.
        class_average: Classes that the mean is over, ``'truth'``, ``'detected'`` or
            ``'all'``, see ``CLASS_AVERAGES``; None: by protocol.
        per_class: Return and log the AP of each action too.
        collect_device, prefix, collect_dir: As in mmengine's ``BaseMetric``, but see
            :class:`~stmixer_mm.evaluation.collecting.CollectingMetric`.

    Raises:
        FileNotFoundError, ValueError: a file is missing or faulty, nothing can be
            evaluated, or predictions have another number of classes or are of other
            keyframes.
    """

    default_prefix = 'mAP'

    def __init__(
        self,
        ann_file: str | Sequence[str],
        label_file: str | None = None,
        *,
        exclude_file: str | Sequence[str] | None = None,
        empty_keyframes_file: str | Sequence[str] | None = None,
        own_videos: bool = False,
        num_classes: int = 81,
        custom_classes: Sequence[int] | None = None,
        score_thr: float = 0.002,
        iou_thrs: float | str | Sequence[float | str] = (0.5,),
        ap_mode: str = 'interpolated',
        protocol: str = 'ava',
        max_actions: int | None = None,
        class_average: str | None = None,
        per_class: bool = True,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        check_choice('ap_mode', ap_mode, AP_MODES)
        check_choice('protocol', protocol, KEYFRAME_PROTOCOLS)
        if class_average is None:
            class_average = KEYFRAME_PROTOCOLS[protocol].class_average
        check_choice('class_average', class_average, CLASS_AVERAGES)
        if max_actions is not None and max_actions < 1:
            raise UserError(
                f'max_actions={max_actions} must be a number from 1 upwards, or None '
                'for no limit.'
            )
        names = read_label_names(
            label_file, num_classes=None if custom_classes else num_classes
        )
        if custom_classes is not None:
            check_custom_classes(custom_classes, names, num_classes)
        self.num_classes = num_classes
        # Of the score columns 1, 2, ...
        self.action_ids = action_ids = list(custom_classes or range(1, num_classes))
        self.score_thr = score_thr
        self.iou_thrs = parse_iou_thrs(iou_thrs)
        self.ap_mode = ap_mode
        self.protocol = KEYFRAME_PROTOCOLS[protocol]
        self.max_actions = max_actions
        self.class_average = class_average
        self.per_class = per_class
        # Score column -> name of each evaluated action.
        self.class_names = {
            column: names.get(action_id, f'class {action_id}')
            for column, action_id in enumerate(action_ids, start=1)
            if not names or action_id in names
        }
        taken = {'overall', 'person_AP', 'person_recall'} & {*self.class_names.values()}
        if taken and per_class:
            raise UserError(
                f'{label_file} names an action {min(taken)!r}, which is a value of '
                'FrameMAPMetric; rename it or set per_class=False.'
            )
        self._is_evaluated = np.isin(np.arange(num_classes), list(self.class_names))
        columns = {action_ids[column - 1]: column for column in self.class_names}

        rows = []
        for file in _files(ann_file):
            found, faults = read_keyframe_rows(
                file, num_classes=None if custom_classes else num_classes
            )
            raise_first(faults)
            rows += found
        self._videos = {row.video_id for row in rows} if own_videos else None
        excluded = self._excluded = _keyframe_keys(exclude_file)
        of_persons = [row for row in rows if row.key not in excluded]
        rows = [row for row in of_persons if row.action_id in columns]
        if not rows:
            raise UserError(
                f'{_named(ann_file)} holds no annotation to evaluate; check that '
                'label_file, custom_classes and exclude_file belong to it.'
            )
        # A detection on two ground truths alike claims that of the higher person id:
        # AVA's evaluator takes the last column for scores, and sorts by them.
        rows.sort(key=lambda row: (row.key, -row.person_id))
        annotated = dict.fromkeys(row.key for row in rows)
        if self.protocol.count_unannotated:
            annotated.update(dict.fromkeys(row.key for row in of_persons))
        empty = sorted(_keyframe_keys(empty_keyframes_file) - excluded)
        wrong = next((key for key in empty if key in annotated), None)
        if wrong is not None:
            raise UserError(
                f'{_named(empty_keyframes_file)}: keyframe {wrong} is listed as '
                f'person-free, but {_named(ann_file)} has a box there; remove one of '
                'them.'
            )
        repeated = len(rows) - len({(r.key, r.bbox_norm, r.action_id) for r in rows})
        if repeated:
            MMLogger.get_current_instance().warning(
                f'{_named(ann_file)}: {repeated} lines repeat keyframe, box and action '
                "of another and count again, as in AVA's evaluator; "
                'tools/check_dataset.py lists them.'
            )
        self.frame_numbers = {key: n for n, key in enumerate((*annotated, *empty))}
        self.truths = self._truth_boxes(rows)
        self.truth_classes = np.array([columns[row.action_id] for row in rows])
        # Persons count whatever they do, also what is not evaluated.
        of_persons = [row for row in of_persons if row.key in annotated]
        of_persons.sort(key=lambda row: (self.frame_numbers[row.key], -row.person_id))
        self.true_persons = _distinct(self._truth_boxes(of_persons))

    def _truth_boxes(self, rows: Sequence[KeyframeRow]) -> Boxes:
        frames = np.array([self.frame_numbers[row.key] for row in rows])
        bboxes = np.array([row.bbox_norm for row in rows])
        return Boxes(frames, bboxes, np.ones(len(rows)))

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep the detections of a batch, those above score_thr of each class.

        Raises:
            ValueError: scores have another width, or are not numbers.
        """
        for sample in data_samples:
            result = select_actions(
                sample, self.num_classes, self.score_thr, counted=self._is_evaluated
            )
            result['key'] = keyframe_key(sample['video_id'], sample['timestamp'])
            scores = result.pop('scores')
            result['person_scores'] = scores[:, 1:].max(axis=1, initial=0)
            self.results.append(result)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """All values over the collected detections."""
        predicted = {result['key'] for result in results}
        missed = self.frame_numbers.keys() - predicted
        if predicted and len(missed) == len(self.frame_numbers) and not self._videos:
            raise UserError(
                f'None of the predicted keyframes, as {min(predicted)}, is in the '
                f'ground truth of FrameMAPMetric, as {min(missed)}; give it the '
                'annotation of the tested dataset.'
            )
        logger = MMLogger.get_current_instance()
        if missed:
            logger.warning(
                f'{len(missed)} of the {len(self.frame_numbers)} keyframes to '
                'evaluate have no prediction and count as missed.'
            )
        _, persons, actions = self.detections(results)
        values = self._person_values(persons)
        table = {}
        for column in self.class_names:
            truths = _take(self.truths, self.truth_classes == column)
            box, scores = actions.of(column)
            detections = Boxes(persons.frames[box], persons.bboxes[box], scores)
            num_truths = len(truths.frames)
            matches = _best_matches(detections, truths)
            aps = self._aps(detections, matches, num_truths)
            table[column] = (num_truths, len(detections.scores), aps)
        counts, detected, all_aps = map(np.array, zip(*table.values(), strict=True))
        all_means = class_mean(all_aps, counts, detected, over=self.class_average)
        means = self._at_thrs('overall', all_means.tolist())
        if self.per_class:
            logger.info(self._format(table))
            for column, (count, _, aps) in table.items():
                if count:
                    values[self.class_names[column]] = aps[0]
        return {**means, **values}

    def detections(self, results: list[dict]) -> tuple[tuple[str, ...], Boxes, Actions]:
        """Keys of all keyframes, and the persons and actions in them that count."""
        results = self.take(results)
        numbers = dict(self.frame_numbers)
        for key in sorted({result['key'] for result in results} - numbers.keys()):
            if self.counts_unannotated(key):
                numbers[key] = len(numbers)
        # Samplers may repeat a keyframe; it counts once.
        by_frame = {numbers[r['key']]: r for r in results if r['key'] in numbers}
        # Detections of equal score count in this order, whichever rank found them.
        persons, actions = _flatten(dict(sorted(by_frame.items())))
        if self.max_actions is not None:
            frames = persons.frames[actions.box]
            counts = best_of_frames(frames, actions.scores, self.max_actions)
            actions = Actions(*(field[counts] for field in actions))
        has_area = (persons.bboxes[:, 2:] > persons.bboxes[:, :2]).all(axis=1)
        if self.protocol.drop_empty_boxes and not has_area.all():
            counts = has_area[actions.box]
            number = np.cumsum(has_area, dtype=np.int32) - 1
            persons = _take(persons, has_area)
            actions = Actions(*(field[counts] for field in actions))
            actions = actions._replace(box=number[actions.box])
        return tuple(numbers), persons, actions

    def true_keyframes(self) -> set[str]:
        """Keys of the keyframes that predictions are expected for."""
        return set(self.frame_numbers)

    def counts_unannotated(self, key: str) -> bool:
        """Whether detections count in a keyframe without ground truth."""
        if self.is_of_others(key) or key in self._excluded:
            return False
        return self.protocol.count_unannotated

    def is_of_others(self, key: str) -> bool:
        """Whether ``own_videos`` leaves out the video of a keyframe."""
        return self._videos is not None and key.rpartition(',')[0] not in self._videos

    def _person_values(self, persons: Boxes) -> dict[str, float]:
        """Localisation alone: all boxes of a keyframe, whatever they do."""
        matches = _best_matches(persons, self.true_persons)
        num_truths = len(self.true_persons.frames)
        found = over_thresholds(partial(recall, matches, num_truths), self.iou_thrs)
        return {
            **self._at_thrs('person_AP', self._aps(persons, matches, num_truths)),
            **self._at_thrs('person_recall', found),
        }

    def _aps(self, boxes: Boxes, matches: BestMatch, num_truths: int) -> list[float]:
        """AP of one class for each of ``iou_thrs``."""
        ap_at = partial(
            average_precision, boxes.scores, matches, num_truths, ap_mode=self.ap_mode
        )
        return over_thresholds(ap_at, self.iou_thrs)

    def _at_thrs(self, name: str, values: Sequence[float]) -> dict[str, float]:
        """Names of a value at each of ``iou_thrs``, plain at the first."""
        names = [name, *(f'{name}@{thr}' for thr in list(self.iou_thrs)[1:])]
        return dict(zip(names, values, strict=True))

    def _format(self, table: dict) -> str:
        width = max(len(name) for name in (*self.class_names.values(), 'action'))
        heads = ''.join(f'{f"AP@{thr}":>12}' for thr in self.iou_thrs)
        lines = [f'{"action":<{width}}{"truths":>9}{"detected":>10}{heads}']
        for column, (count, detected, aps) in table.items():
            cells = ''.join(f'{ap:12.4f}' if count else f'{"-":>12}' for ap in aps)
            name = self.class_names[column]
            lines.append(f'{name:<{width}}{count:>9}{detected:>10}{cells}')
        return '\n' + '\n'.join(lines)


def _files(files: str | Sequence[str] | None) -> list[str]:
    if files is None:
        return []
    return [files] if isinstance(files, str) else list(files)


def _named(files: str | Sequence[str]) -> str:
    return ', '.join(_files(files))


def _keyframe_keys(files: str | Sequence[str] | None) -> set[str]:
    """Keys of the keyframes that any of the files names."""
    return set().union(*map(read_timestamp_keys, _files(files)))


def _best_matches(detections: Boxes, truths: Boxes) -> BestMatch:
    return best_matches(frame_pairs(detections, truths), len(detections.frames))


def _take(boxes: Boxes, index: np.ndarray) -> Boxes:
    return Boxes(*(field[index] for field in boxes))


def _distinct(truths: Boxes) -> Boxes:
    """Persons instead of their actions: each box of a keyframe once."""
    rows = np.column_stack([truths.frames, truths.bboxes])
    _, first = np.unique(rows, axis=0, return_index=True)
    return _take(truths, np.sort(first))


def _flatten(by_frame: dict[int, dict]) -> tuple[Boxes, Actions]:
    """All predicted persons, and all that they are said to do."""
    results = list(by_frame.values())
    num_boxes = np.array([len(r['bboxes']) for r in results], dtype=int)
    persons = Boxes(
        np.repeat(np.array(list(by_frame), dtype=int), num_boxes),
        join_field(results, 'bboxes', (0, 4), np.float32),
        join_field(results, 'person_scores', (0,), np.float32),
    )
    return persons, join_actions(results)
