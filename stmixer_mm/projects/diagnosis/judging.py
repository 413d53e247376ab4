"""Right and wrong detections of a metric, at its first IoU threshold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from stmixer_mm.evaluation.functional.average_precision import by_score
from stmixer_mm.evaluation.functional.tables import Row
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric, Matched
from stmixer_mm.evaluation.metrics.predictions import Detections
from stmixer_mm.evaluation.metrics.tube_metric import TubeMetric


class ClassResult(NamedTuple):
    """Counts of one class."""

    name: str
    ap: float  # NaN without ground truth
    gts: int
    detected: int
    right: int  # of the detected ones


class JudgedBox(NamedTuple):
    """A detection of one class."""

    bbox_norm: tuple[float, ...]
    class_name: str
    score: float
    right: bool


@dataclass
class JudgedKeyframe:
    """The detections of a keyframe that score high enough."""

    key: str  # as of ``keyframe_key``
    num_gts: int = 0  # of all classes
    boxes: list[JudgedBox] = field(default_factory=list)

    @property
    def num_right(self) -> int:
        return sum(box.right for box in self.boxes)

    @property
    def cost(self) -> float:
        """1 for each ground truth, less the score of the detection that is right about
        it; and the score of each wrong detection."""
        signed = (-box.score if box.right else box.score for box in self.boxes)
        return float(self.num_gts + sum(signed))


def first_threshold(metric: DetectionMetric) -> float:
    """The IoU threshold of pictures and error types; of a range its first."""
    return next(iter(metric.iou_thrs.values()))[0]


def class_results(
    metric: DetectionMetric, matched: Mapping[int, Matched]
) -> list[ClassResult]:
    """All classes of a metric, from its ``match_classes``."""
    thr, results = first_threshold(metric), []
    for column, name in metric.class_names.items():
        class_matches = matched[column]
        right = metric.right(class_matches, thr)[by_score(class_matches.scores)]
        ap = metric.average_precision(right, class_matches.num_gts)
        counts = class_matches.num_gts, len(right), int(right.sum())
        results.append(ClassResult(name, ap, *counts))
    return results


def judge_keyframes(
    metric: DetectionMetric, detections: Detections, *, score_thr: float
) -> list[JudgedKeyframe]:
    """Keyframes of a metric that matches boxes, from the highest cost down."""
    thr, keyframes = first_threshold(metric), {}

    def keyframe(frame: int) -> JudgedKeyframe:
        key = detections.keyframe_key(frame)
        return keyframes.setdefault(frame, JudgedKeyframe(key))

    for column, name in metric.class_names.items():
        for frame in metric.gt_boxes(column).frames.tolist():
            keyframe(frame).num_gts += 1
        boxes = metric.found(detections, column)
        right = metric.right(metric.match(detections, column, min_iou=thr), thr)
        for row in np.flatnonzero(boxes.scores >= score_thr):
            frame, bbox = int(boxes.frames[row]), boxes.bboxes[row]
            if isinstance(metric, TubeMetric):  # in pixels
                bbox = bbox / metric.scales[frame // metric.frame_limit]
            score, is_right = float(boxes.scores[row]), bool(right[row])
            box = JudgedBox(tuple(bbox.tolist()), name, score, is_right)
            keyframe(frame).boxes.append(box)
    return sorted(keyframes.values(), key=lambda judged: (-judged.cost, judged.key))


def keyframe_rows(keyframes: Sequence[JudgedKeyframe]) -> list[Row]:
    """A table: the names, a row for each keyframe."""
    rows = [['video', 'timestamp', 'cost', 'gts', 'found', 'wrong']]
    for keyframe in keyframes:
        video, timestamp = keyframe.key.rsplit(',', 1)
        num_wrong = len(keyframe.boxes) - keyframe.num_right
        counts = keyframe.cost, keyframe.num_gts, keyframe.num_right, num_wrong
        rows.append([video, f'{float(timestamp):g}', *counts])
    return rows
