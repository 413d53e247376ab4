"""Right and wrong detections of a metric, for its figures and tables."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stmixer_mm.evaluation.functional.average_precision import (
    average_precision,
    by_score,
    class_mean,
)
from stmixer_mm.evaluation.functional.matching import Boxes
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.metrics.predictions import Detections
from stmixer_mm.evaluation.metrics.tube_metric import TubeMetric


class ClassResult(NamedTuple):
    """One class at the first IoU threshold; n boxes or tubes by descending score."""

    name: str
    num_gts: int
    ap: float  # NaN without ground truth
    scores: np.ndarray  # (n,)
    right: np.ndarray  # (n,) bool


class JudgedBoxes(NamedTuple):
    """N detections of all classes in F keyframes, at the first IoU threshold."""

    class_names: Mapping[int, str]  # by column
    keyframes: tuple[str, ...]  # F keys, as of ``keyframe_key``
    gts_in_frame: np.ndarray  # (F,) int, ground truths of all classes
    frames: np.ndarray  # (N,) int, numbers of keyframes
    bboxes_norm: np.ndarray  # (N, 4) float32
    scores: np.ndarray  # (N,) float
    columns: np.ndarray  # (N,) int, of the classes, from 1
    right: np.ndarray  # (N,) bool


class WorstKeyframe(NamedTuple):
    """Errors of a keyframe."""

    key: str
    cost: float
    num_gts: int
    num_found: int  # of them, by detections that score high enough
    num_wrong: int  # detections that score high enough


def first_threshold(metric: DetectionMetric) -> float:
    """The IoU threshold of pictures and error types; of a range its first."""
    return next(iter(metric.iou_thrs.values()))[0]


def class_results(metric: DetectionMetric, detections: Detections) -> list[ClassResult]:
    """All classes of a metric."""
    thr, found = first_threshold(metric), []
    for column, name in metric.class_names.items():
        matched = metric.match(detections, column, min_iou=thr)
        order = by_score(matched.scores)
        right = metric.right(matched, thr)[order]
        ap = average_precision(right, matched.num_gts, mode=metric.protocol.ap)
        found.append(
            ClassResult(name, matched.num_gts, ap, matched.scores[order], right)
        )
    return found


def mean_ap(found: Sequence[ClassResult], over: str) -> float:
    """Mean over all or some of the classes, see ``CLASS_AVERAGES``."""
    rows = [(result.ap, result.num_gts, len(result.scores)) for result in found]
    return float(class_mean(*np.array(rows).T, over=over))


def judge_boxes(metric: DetectionMetric, detections: Detections) -> JudgedBoxes:
    """Detections of a metric that matches boxes."""
    thr, columns = first_threshold(metric), list(metric.class_names)
    right = [
        metric.right(metric.match(detections, column, min_iou=thr), thr)
        for column in columns
    ]
    found = [metric.found(detections, column) for column in columns]
    boxes = Boxes(*map(np.concatenate, zip(*found, strict=True)))
    of_gts = np.concatenate([metric.gt_boxes(column).frames for column in columns])
    numbers, places = np.unique(
        np.concatenate([boxes.frames, of_gts]), return_inverse=True
    )
    frames, of_gts = np.split(places, [len(boxes.frames)])
    bboxes = boxes.bboxes
    if isinstance(metric, TubeMetric):  # in pixels
        bboxes = bboxes / metric.scales[boxes.frames // metric.frame_limit]
    return JudgedBoxes(
        metric.class_names,
        tuple(map(detections.keyframe_key, numbers.tolist())),
        np.bincount(of_gts, minlength=len(numbers)),
        frames,
        bboxes.astype(np.float32),
        boxes.scores,
        np.repeat(columns, list(map(len, right))),
        np.concatenate(right),
    )


def worst_keyframes(
    judged: JudgedBoxes, number: int, *, score_thr: float = 0.3
) -> list[WorstKeyframe]:
    """The keyframes with the highest costs.

    Each ground truth costs 1, less the score of the detection that is right about it,
    and each wrong detection costs its score; only scores from score_thr on count,
    which are those that a picture shows.
    """
    shown = judged.scores >= score_thr
    right, wrong = shown & judged.right, shown & ~judged.right

    def count(mask: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        weights = None if weights is None else weights[mask]
        return np.bincount(judged.frames[mask], weights, len(judged.keyframes))

    gts = judged.gts_in_frame
    cost = gts - count(right, judged.scores) + count(wrong, judged.scores)
    table = zip(judged.keyframes, cost, gts, count(right), count(wrong), strict=True)
    worst = sorted(table, key=lambda row: -row[1])[:number]
    return [
        WorstKeyframe(key, float(cost), *map(int, counts))
        for key, cost, *counts in worst
        if cost > 0
    ]
