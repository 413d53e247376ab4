"""Which detections are right: what figures and tables of a metric are made of.

N detections (boxes, or tubes for ``VideoMAPMetric``) of K classes, M ground truths, F
keyframes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stmixer_mm.evaluation.functional.average_precision import (
    AP_MODES,
    by_score,
    class_mean,
    first_threshold,
    precision,
)
from stmixer_mm.evaluation.functional.matching import Boxes
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.metrics.predictions import Detections
from stmixer_mm.evaluation.metrics.tube_metrics import VideoMAPMetric


class Judged(NamedTuple):
    """Detections and which of them are right, at the first IoU threshold."""

    iou_thr: float
    ap_mode: str  # a name of ``AP_MODES``
    class_average: str  # one of ``CLASS_AVERAGES``
    classes: tuple[str, ...]  # K names
    columns: np.ndarray  # (K,) int, of their scores in predictions, from 1
    num_gts: np.ndarray  # (K,) int
    labels: np.ndarray  # (N,) int, numbers of classes
    scores: np.ndarray  # (N,) float
    right: np.ndarray  # (N,) bool
    keyframes: tuple[str, ...]  # F keys, as of ``keyframe_key``; none for tubes
    frames: np.ndarray  # (N,) int, numbers of keyframes; -1 for tubes
    bboxes_norm: np.ndarray  # (N, 4) float32; none for tubes
    gts_in_frame: np.ndarray  # (F,) int, ground truths of all classes


class ClassResult(NamedTuple):
    """One class; n detections by descending score."""

    name: str
    num_gts: int
    ap: float
    ap_mode: str  # a name of ``AP_MODES``
    scores: np.ndarray  # (n,)
    right: np.ndarray  # (n,) bool
    precision: np.ndarray  # (n,)
    recall: np.ndarray  # (n,)


class Keyframe(NamedTuple):
    """How wrong the detections of a keyframe are."""

    key: str
    cost: float
    num_gts: int
    num_found: int  # of them, by detections that score high enough
    num_wrong: int  # detections that score high enough


def judge(metric: DetectionMetric, detections: Detections) -> Judged:
    """Which detections are right, of a metric of ours."""
    thr = first_threshold(metric.iou_thrs)
    columns = list(metric.class_names)
    matched = [metric.match(detections, column, min_iou=thr) for column in columns]
    counts = [len(of_class.scores) for of_class in matched]
    keyframes, frames = (), np.full(sum(counts), -1)
    bboxes_norm, gts_in_frame = np.zeros((0, 4)), np.zeros(0, dtype=int)
    if not isinstance(metric, VideoMAPMetric):
        found = [metric.found(detections, column) for column in columns]
        boxes = Boxes(*map(np.concatenate, zip(*found, strict=True)))
        of_gts = np.concatenate([metric.gt_boxes(column).frames for column in columns])
        numbers, places = np.unique(
            np.concatenate([boxes.frames, of_gts]), return_inverse=True
        )
        frames, of_gts = np.split(places, [len(boxes.frames)])
        keyframes = tuple(map(detections.keyframe_key, numbers.tolist()))
        bboxes_norm = metric.normalise(boxes)
        gts_in_frame = np.bincount(of_gts, minlength=len(numbers))
    return Judged(
        thr,
        metric.protocol.ap,
        metric.class_average,
        tuple(metric.class_names.values()),
        np.array(columns),
        np.array([of_class.num_gts for of_class in matched]),
        np.repeat(np.arange(len(columns)), counts),
        np.concatenate([of_class.scores for of_class in matched]),
        np.concatenate([metric.right(of_class, thr) for of_class in matched]),
        keyframes,
        frames,
        bboxes_norm.astype(np.float32),
        gts_in_frame,
    )


def class_results(judged: Judged) -> list[ClassResult]:
    """All classes with ground truth, the worst first."""
    found = []
    for number, name in enumerate(judged.classes):
        num_gts = int(judged.num_gts[number])
        if not num_gts:
            continue
        rows = np.flatnonzero(judged.labels == number)
        rows = rows[by_score(judged.scores[rows])]
        right = judged.right[rows]
        found.append(
            ClassResult(
                name,
                num_gts,
                AP_MODES[judged.ap_mode](right, num_gts),
                judged.ap_mode,
                judged.scores[rows],
                right,
                precision(right),
                np.cumsum(right) / num_gts,
            )
        )
    return sorted(found, key=lambda result: result.ap)


def mean_ap(judged: Judged, found: Sequence[ClassResult]) -> float:
    """The mean over the classes that the metric takes it over.

    Args:
        judged: Detections.
        found: Their ``class_results``.
    """
    without = [(0.0, 0, 0)] * (len(judged.classes) - len(found))
    rows = [(result.ap, result.num_gts, len(result.scores)) for result in found]
    aps, num_gts, num_found = np.array([*rows, *without]).T
    return float(class_mean(aps, num_gts, num_found, over=judged.class_average))


def worst_keyframes(
    judged: Judged, number: int, *, score_thr: float = 0.3
) -> list[Keyframe]:
    """The keyframes with the highest costs; none for tubes.

    Each ground truth costs 1, less the score of the detection that is right about it,
    and each wrong detection costs its score; only scores from score_thr on count,
    which are those that a picture shows.
    """
    num_frames = len(judged.keyframes)
    shown = judged.scores >= score_thr
    right, wrong = shown & judged.right, shown & ~judged.right

    def count(mask: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        weights = None if weights is None else weights[mask]
        return np.bincount(judged.frames[mask], weights, minlength=num_frames)

    if not num_frames:
        return []
    gts = judged.gts_in_frame
    cost = gts - count(right, judged.scores) + count(wrong, judged.scores)
    table = zip(judged.keyframes, cost, gts, count(right), count(wrong), strict=True)
    worst = sorted(table, key=lambda row: -row[1])[:number]
    return [
        Keyframe(key, float(cost), *map(int, counts))
        for key, cost, *counts in worst
        if cost > 0
    ]
