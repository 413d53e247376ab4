"""What a metric's figures are made of: classes, curves, scores, keyframes.

N detections (boxes, or tubes for ``VideoMAPMetric``) of K classes, M ground truths, F
keyframes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from mmengine.evaluator import BaseMetric

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.functional.average_precision import (
    AP_MODES,
    by_score,
    class_mean,
    first_threshold,
    precision,
)
from stmixer_mm.evaluation.functional.frame_map import Boxes, frame_pairs
from stmixer_mm.evaluation.functional.matching import claim_best
from stmixer_mm.evaluation.metrics.frame_map_metric import FrameMAPMetric
from stmixer_mm.evaluation.metrics.tube_metrics import (
    TubeFrameMAPMetric,
    VideoMAPMetric,
)


class Judged(NamedTuple):
    """Detections and which of them are right, at the first IoU threshold."""

    iou_thr: float
    ap_mode: str  # a name of ``AP_MODES``
    class_average: str  # one of ``CLASS_AVERAGES``
    classes: tuple[str, ...]  # K names
    columns: np.ndarray  # (K,) int, of their scores in predictions, from 1
    num_truths: np.ndarray  # (K,) int
    labels: np.ndarray  # (N,) int, numbers of classes
    scores: np.ndarray  # (N,) float
    right: np.ndarray  # (N,) bool
    keyframes: tuple[str, ...]  # F keys, as of ``keyframe_key``; none for tubes
    frames: np.ndarray  # (N,) int, numbers of keyframes; -1 for tubes
    bboxes_norm: np.ndarray  # (N, 4) float32; none for tubes
    truths_in_frame: np.ndarray  # (F,) int, ground truths of all classes


class ClassResult(NamedTuple):
    """One class; n detections by descending score."""

    name: str
    num_truths: int
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
    num_truths: int
    num_found: int  # of them, by detections that score high enough
    num_wrong: int  # detections that score high enough


def judge(metric: BaseMetric, results: Sequence[dict]) -> Judged:
    """Which detections are right.

    Args:
        metric: ``FrameMAPMetric``, ``TubeFrameMAPMetric`` or ``VideoMAPMetric``.
        results: What it has collected; taken before it evaluates, which empties it.

    Raises:
        ValueError: it is another metric, or the results do not fit it.
    """
    if isinstance(metric, FrameMAPMetric):
        return _judge_keyframes(metric, results)
    if isinstance(metric, TubeFrameMAPMetric | VideoMAPMetric):
        return _judge_tubes(metric, results)
    raise UserError(
        f'{type(metric).__name__} cannot be analysed; use FrameMAPMetric, '
        'TubeFrameMAPMetric or VideoMAPMetric as test_evaluator.'
    )


def class_results(judged: Judged) -> list[ClassResult]:
    """All classes with ground truth, the worst first."""
    found = []
    for number, name in enumerate(judged.classes):
        num_truths = int(judged.num_truths[number])
        if not num_truths:
            continue
        rows = np.flatnonzero(judged.labels == number)
        rows = rows[by_score(judged.scores[rows])]
        right = judged.right[rows]
        found.append(
            ClassResult(
                name,
                num_truths,
                AP_MODES[judged.ap_mode](right, num_truths),
                judged.ap_mode,
                judged.scores[rows],
                right,
                precision(right),
                np.cumsum(right) / num_truths,
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
    rows = [(result.ap, result.num_truths, len(result.scores)) for result in found]
    aps, num_truths, num_found = np.array([*rows, *without]).T
    return float(class_mean(aps, num_truths, num_found, over=judged.class_average))


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
    truths = judged.truths_in_frame
    cost = truths - count(right, judged.scores) + count(wrong, judged.scores)
    num_found, num_wrong = count(right), count(wrong)
    return [
        Keyframe(
            judged.keyframes[frame],
            float(cost[frame]),
            int(truths[frame]),
            int(num_found[frame]),
            int(num_wrong[frame]),
        )
        for frame in np.argsort(-cost, kind='stable')[:number]
        if cost[frame] > 0
    ]


def format_classes(found: Sequence[ClassResult], number: int) -> str:
    """A text table of the worst classes."""
    width = max(len(result.name) for result in found)
    lines = [f'{"class":<{width}}{"AP":>9}{"true":>9}{"detected":>10}{"right":>8}']
    for result in found[:number]:
        lines.append(
            f'{result.name:<{width}}{result.ap:9.4f}{result.num_truths:>9}'
            f'{len(result.scores):>10}{result.right.sum():>8}'
        )
    return '\n'.join(lines)


def format_keyframes(found: Sequence[Keyframe]) -> str:
    """A text table of keyframes."""
    width = max(len(keyframe.key) for keyframe in found)
    lines = [f'{"keyframe":<{width}}{"cost":>9}{"true":>9}{"found":>8}{"wrong":>8}']
    for keyframe in found:
        lines.append(
            f'{keyframe.key:<{width}}{keyframe.cost:9.3f}{keyframe.num_truths:>9}'
            f'{keyframe.num_found:>8}{keyframe.num_wrong:>8}'
        )
    return '\n'.join(lines)


def _judge_keyframes(metric: FrameMAPMetric, results: Sequence[dict]) -> Judged:
    keys, persons, actions = metric.detections(results)
    columns = np.array(list(metric.class_names))
    box, classes = actions.box, actions.classes.astype(int)
    found = Boxes(
        persons.frames[box] * metric.num_classes + classes,
        persons.bboxes[box],
        actions.scores,
    )
    truths, true_classes = metric.truths, metric.truth_classes
    groups = truths.frames * metric.num_classes + true_classes
    order = np.argsort(groups, kind='stable')
    truths_by_group = Boxes(groups[order], truths.bboxes[order], truths.scores)
    thr = first_threshold(metric.iou_thrs)
    pairs = frame_pairs(found, truths_by_group)
    return Judged(
        thr,
        metric.ap_mode,
        metric.class_average,
        tuple(metric.class_names.values()),
        columns,
        np.bincount(true_classes, minlength=metric.num_classes)[columns],
        np.searchsorted(columns, classes),
        found.scores,
        claim_best(found.scores, found.frames, pairs, thr),
        keys,
        persons.frames[box],
        found.bboxes.astype(np.float32),
        np.bincount(truths.frames, minlength=len(keys)),
    )


def _judge_tubes(
    metric: TubeFrameMAPMetric | VideoMAPMetric, results: Sequence[dict]
) -> Judged:
    thr = first_threshold(metric.iou_thrs)
    detections = metric.detections(results)
    found = [metric.match(detections, label, min_iou=thr) for label in metric.evaluated]
    counts = [len(matched.scores) for matched in found]
    right = [
        metric.protocol.right(matched.scores, matched.groups, matched.pairs, thr)
        for matched in found
    ]
    keyframes, frames = (), np.full(sum(counts), -1)
    bboxes_norm = np.zeros((0, 4), dtype=np.float32)
    truths_in_frame = np.zeros(0, dtype=int)
    if isinstance(metric, TubeFrameMAPMetric):
        of_found = np.concatenate([matched.groups for matched in found])
        of_truths = np.concatenate(
            [metric.truth_boxes(label).frames for label in metric.evaluated]
        )
        numbers, number = np.unique(
            np.concatenate([of_found, of_truths]), return_inverse=True
        )
        of_keyframes = [metric.split_frame_number(one) for one in numbers.tolist()]
        keyframes = tuple(keyframe_key(*one) for one in of_keyframes)
        frames = number[: len(of_found)]
        scales = [metric.scales[metric.video_numbers[name]] for name, _ in of_keyframes]
        bboxes = [metric.found(detections, label).bboxes for label in metric.evaluated]
        bboxes_norm = np.concatenate(bboxes) / np.reshape(scales, (-1, 4))[frames]
        truths_in_frame = np.bincount(number[len(of_found) :], minlength=len(numbers))
    return Judged(
        thr,
        metric.protocol.ap,
        metric.class_average,
        tuple(metric.labels[label] for label in metric.evaluated),
        1 + np.array(metric.evaluated),
        np.array([matched.num_truths for matched in found]),
        np.repeat(np.arange(len(found)), counts),
        np.concatenate([matched.scores for matched in found]),
        np.concatenate(right),
        keyframes,
        frames,
        bboxes_norm.astype(np.float32),
        truths_in_frame,
    )
