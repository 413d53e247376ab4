"""Base of our metrics: detections in, AP of each class and means out."""

import os
from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from typing import NamedTuple

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from stmixer_mm.errors import UserError, choose
from stmixer_mm.evaluation.functional.average_precision import (
    CLASS_AVERAGES,
    average_precision,
    by_score,
    class_mean,
    over_thresholds,
    parse_iou_thrs,
)
from stmixer_mm.evaluation.functional.matching import Boxes, Pairs, frame_pairs, match
from stmixer_mm.evaluation.functional.protocols import Protocol, parse_protocol
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.evaluation.metrics.predictions import (
    Detections,
    count_classes,
    read_instances,
    select_actions,
)

# Effects of detections in a keyframe or video without ground truth.
WRONG, IGNORED = 'counts as wrong', 'does not count'


class Matched(NamedTuple):
    """Detections of one class, N boxes or tubes, and their overlaps."""

    groups: np.ndarray  # (N,) int, within which they are compared with ground truth
    scores: np.ndarray  # (N,) float
    pairs: Pairs
    gt_groups: np.ndarray  # (M,) int, of the ground truth that counts

    @property
    def num_gts(self) -> int:
        return len(self.gt_groups)


class DetectionMetric(BaseMetric):
    """Base of the metrics of detections.

    A subclass sets its classes by ``_set_classes``, and has

    - ``gt_boxes(column)``: ground truth of a class, by keyframe;
    - ``_split(sample, instances)``: parts of a result: a key, boxes (n, ...) and scores
      (n, num_classes) of each;
    - ``_join(parts)``: :class:`Detections` of the parts of all results.

    Args:
        protocol: Choices of the evaluator, see ``parse_protocol``.
        iou_thrs: IoU thresholds, the main one first; ``'0.5:0.95'`` is the mean over
            a range in steps of 0.05, ``'0.1:0.9:0.1'`` with a step of one's own.
        class_average: Classes that the mean is over, see ``CLASS_AVERAGES``; None: by
            protocol.
        score_thr: Scores up to it do not count as detections; None: by protocol, or
            else ``model_score_thr`` for a model, which scores all classes, and no limit
            for a csv.
        data_root: Folder that all relative paths are in.
        collect_device, prefix, collect_dir: As in mmengine's ``BaseMetric``.
    """

    model_score_thr: float
    protocols: Mapping[str, Protocol]  # by name
    further_columns: Sequence[int] = ()  # matched besides those of the classes
    logs_classes = True  # a table with a row for each
    ties = ''  # a note on equal scores, for the log
    unit: str  # of detections
    places = 'keyframes'  # that are predicted
    num_classes: int  # the dummy class 0 included
    class_names: Mapping[int, str]  # by score column, of the evaluated classes

    def __init__(
        self,
        *,
        protocol: str | Protocol | Mapping,
        iou_thrs: float | str | Sequence[float | str] = (0.5,),
        class_average: str | None = None,
        score_thr: float | None = None,
        data_root: str | None = '',
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        self.protocol_name = protocol if isinstance(protocol, str) else 'own'
        protocol = parse_protocol(protocol, self.protocols)
        average = class_average or protocol.class_average
        choose('class_average', average, CLASS_AVERAGES)
        self.protocol = protocol._replace(class_average=average)
        self.iou_thrs = parse_iou_thrs(iou_thrs)
        if not (score_thr is None or (isinstance(score_thr, Real) and score_thr < 1)):
            raise UserError(
                f'score_thr={score_thr!r} of {type(self).__name__} lets no score count; '
                'set it to a number below 1.'
            )
        self.score_thr = protocol.score_thr if score_thr is None else score_thr
        self._data_root = data_root or ''

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep the detections of a batch, those above score_thr of each class."""
        for sample in data_samples:
            instances = read_instances(sample, self.num_classes)
            parts = []
            for key, bboxes, scores in self._split(sample, instances):
                bboxes, scores = count_classes(bboxes, scores, self.protocol.classes)
                counted = self._counted(bboxes, scores)
                parts.append(dict(select_actions(bboxes, scores, counted), key=key))
            # One result a sample, as mmengine cuts off what is more.
            self.results.append(parts)

    def evaluate(self, size: int) -> dict[str, float]:
        """Values over the results of all ranks; see mmengine's ``BaseMetric``."""
        collect_dir = self.collect_dir
        log_file = MMLogger.get_current_instance().log_file
        if log_file and not collect_dir:
            # mmengine's choice is a folder in the current one, which stays behind.
            self.collect_dir = os.path.join(os.path.dirname(log_file), '.collected')
        try:
            return super().evaluate(size)
        finally:
            self.collect_dir = collect_dir

    def compute_metrics(self, results: list[list[dict]]) -> dict[str, float]:
        """Means over the classes, and APs of the classes."""
        return self.values(self.match_classes(self.detections(results)))

    def detections(self, results: list[list[dict]]) -> Detections:
        """All detections that count, whatever the order of the results.

        A keyframe that a sampler repeats counts once. The results are used up.
        """
        return self._join([part for parts in results for part in parts])

    def effect(self, key: str) -> str | None:
        """``WRONG`` or ``IGNORED`` for detections that the ground truth has no place for.

        None for those of another part of the dataset.
        """
        return IGNORED

    def class_boxes(self, detections: Detections, column: int) -> Boxes:
        """Detected boxes of a class."""
        return detections.of(column)

    def match(self, detections: Detections, column: int, *, min_iou: float) -> Matched:
        """Detections of a class, and the ground truth that they overlap by min_iou."""
        boxes = self.class_boxes(detections, column)
        gts = self.counted_gts(detections, column)
        pairs = frame_pairs(boxes, gts, pixel=self.protocol.pixel, min_iou=min_iou)
        return Matched(boxes.frames, boxes.scores, pairs, gts.frames)

    def match_classes(self, detections: Detections) -> dict[int, Matched]:
        """Matches for :meth:`values`, by column."""
        min_iou = min(min(thrs) for thrs in self.iou_thrs.values())
        return {
            column: self.match(detections, column, min_iou=min_iou)
            for column in (*self.class_names, *self.further_columns)
        }

    def counted_gts(self, detections: Detections, column: int) -> Boxes:
        """Ground truth of a class that counts, by keyframe."""
        return self.gt_boxes(column)

    def right(self, matched: Matched, iou_thr: float) -> np.ndarray:
        """Mask (N,) of the detections that are right."""
        rules = self.protocol
        return match(
            matched.scores,
            matched.groups,
            matched.pairs,
            iou_thr,
            matching=rules.matching,
            last_of_equal=rules.last_of_equal,
        )

    def average_precision(self, right: np.ndarray, num_gts: int) -> float:
        """AP of detections (N,), the highest score first."""
        total = num_gts + self.protocol.extra_gts if num_gts else 0
        return average_precision(right, total, mode=self.protocol.ap)

    def _compare(self, predicted: Collection[str], expected: Collection[str]) -> None:
        """Log how many keyframes or videos are missed, and how many are unknown.

        Raises:
            UserError: all that are predicted are unknown.
        """
        predicted, expected = {*predicted}, {*expected}
        missed, unknown = expected - predicted, predicted - expected
        if missed == expected and any(map(self.effect, unknown)):
            raise UserError(
                f'None of the predicted {self.places}, as {min(unknown)}, is in the '
                f'ground truth of {type(self).__name__}, as {min(missed)}; give it the '
                'annotation of the tested dataset and split.'
            )
        logger = MMLogger.get_current_instance()
        if missed:
            logger.warning(
                f'{len(missed)} of the {len(expected)} {self.places} to evaluate have no '
                'prediction and count as missed.'
            )
        for effect in (WRONG, IGNORED):
            if keys := [key for key in unknown if self.effect(key) == effect]:
                logger.warning(
                    f'{len(keys)} of {len(predicted)} predicted {self.places}, as '
                    f'{min(keys)}, are not in the ground truth: what is found there '
                    f'{effect}.'
                )

    def _counted(self, bboxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Mask of the scores (n, num_classes) of boxes (n, ...) that are detections."""
        thr = self.model_score_thr if self.score_thr is None else self.score_thr
        return (scores > thr) & self._is_evaluated

    def value_name(self, name: str, thr: str) -> str:
        """Name of a value at an IoU threshold."""
        return f'{name}@{thr}'

    def _paths(self, files: str | Sequence[str] | None) -> list[str]:
        files = [files] if isinstance(files, str) else files or []
        return [os.path.join(self._data_root, file) for file in files]

    def _set_classes(self, class_names: Mapping[int, str], num_classes: int) -> None:
        self.class_names, self.num_classes = class_names, num_classes
        self._is_evaluated = np.isin(np.arange(self.num_classes), list(class_names))

    def _aps(self, matched: Matched) -> list[float]:
        """AP of one class for each of ``iou_thrs``."""
        order = by_score(matched.scores)

        def ap_at(thr: float) -> float:
            right = self.right(matched, thr)[order]
            return self.average_precision(right, matched.num_gts)

        return over_thresholds(ap_at, self.iou_thrs)

    def values(self, matched: Mapping[int, Matched]) -> dict[str, float]:
        """Means over the classes, then the AP of each class at the first threshold."""
        rows = []
        for column in self.class_names:
            matches = matched[column]
            rows.append((matches.num_gts, len(matches.scores), self._aps(matches)))
        num_gts, num_detected, aps = map(np.array, zip(*rows, strict=True))
        over = self.protocol.class_average
        means = class_mean(aps, num_gts, num_detected, over=over)
        values = self._at_thrs('overall', means.tolist())
        first, names = next(iter(self.iou_thrs)), self.class_names.values()
        table = [['class', 'gts', self.unit, *(f'AP@{thr}' for thr in self.iou_thrs)]]
        for name, (count, number, class_aps) in zip(names, rows, strict=True):
            cells = class_aps if count else '-' * len(class_aps)
            table.append([name, count, number, *cells])
            if count:
                values[self.value_name(name, first)] = class_aps[0]
        rules = self.protocol
        convention = (
            f'{self.prefix or self.default_prefix} by protocol {self.protocol_name}: AP '
            f'{rules.ap}, mean over classes {rules.class_average}{self.ties}'
        )
        classes = f'\n{format_table(table)}' if self.logs_classes else ''
        MMLogger.get_current_instance().info(convention + classes)
        return values

    def _at_thrs(self, name: str, values: Sequence[float]) -> dict[str, float]:
        """Names of a value at each of ``iou_thrs``."""
        names = [self.value_name(name, thr) for thr in self.iou_thrs]
        return dict(zip(names, values, strict=True))
