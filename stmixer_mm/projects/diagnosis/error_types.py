"""Error types of the detections of a class: of boxes and of tubes.

N detections of one class; classes, frames and videos are numbers, boxes xyxy in pixels.
Of boxes they are those of Kalogeiton et al., Action tubelet detector for spatio-temporal
action localization, ICCV 2017, by the rules of ``frameAP_error`` in the scripts of MOC
(Li et al., ECCV 2020), which took them from there; of tubes those of MultiSports (Li et
al., ICCV 2021), by the rules of its VideomAP_error.py and of ``videoAP_error`` in its
evaluate_multisports.py, which differ as their protocols do.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from stmixer_mm.evaluation import TubeFrameMAPMetric, VideoMAPMetric
from stmixer_mm.evaluation.functional.average_precision import (
    area,
    average_precision,
    by_score,
)
from stmixer_mm.evaluation.functional.matching import Boxes, frame_pairs, match, take
from stmixer_mm.evaluation.functional.protocols import FRAME_PROTOCOLS
from stmixer_mm.evaluation.functional.tables import Row
from stmixer_mm.evaluation.functional.tubes import Overlaps, Tubes, overlaps_by_gt
from stmixer_mm.evaluation.metrics.predictions import Detections
from stmixer_mm.evaluation.metrics.tube_metric import TubeMetric
from stmixer_mm.projects.diagnosis.judging import first_threshold


class ErrorShares(NamedTuple):
    """Shares of a class of boxes; they add up to 1."""

    ap: float
    localisation: float
    classification: float
    time: float
    other: float
    missed: float


class TubeErrorShares(NamedTuple):
    """Shares of a class of tubes; by ACT's area they add up to 1."""

    ap: float
    repeat: float
    extra: float
    localisation: float
    classification: float
    time: float
    classification_time: float
    classification_localisation: float
    time_localisation: float
    classification_time_localisation: float
    missed: float


Shares = TypeVar('Shares', ErrorShares, TubeErrorShares)


def error_shares(
    types: Sequence[str] | np.ndarray,
    num_gts: int,
    kind: type[Shares],
    *,
    ap_mode: str = 'act',
) -> Shares:
    """AP and errors of one class.

    Each error type is the area under its share of the detections over recall; missed is
    what recall lacks to 1. By ACT's rule they add up to 1 with AP; under
    ``'interpolated'`` each share has an envelope of its own, so that they are more.

    Args:
        types: (N,) names of the detections by descending score, fields of ``kind``.
        num_gts: Ground truths of the class, at least 1.
        kind: ``ErrorShares`` or ``TubeErrorShares``.
        ap_mode: A name of ``AP_MODES``.
    """
    types, ranks = np.asarray(types), np.arange(1, len(types) + 1)
    right = types == 'ap'
    areas = [
        area(np.cumsum(types == name) / ranks, right, num_gts, mode=ap_mode)
        for name in kind._fields[1:-1]
    ]
    missed = float(1 - right.sum() / num_gts)
    return kind(average_precision(right, num_gts, mode=ap_mode), *areas, missed)


def shares_of(metric: TubeMetric, detections: Detections) -> dict[str, Shares]:
    """Shares of boxes or tubes at the first threshold, by label with ground truth."""
    of_tubes = isinstance(metric, VideoMAPMetric)
    return (tube_error_shares if of_tubes else box_error_shares)(metric, detections)


def box_error_shares(
    metric: TubeFrameMAPMetric, detections: Detections
) -> dict[str, ErrorShares]:
    """Shares at the first threshold, by label with ground truth."""
    gt_boxes = [metric.gt_boxes(column) for column in metric.gts]
    columns = np.repeat([*metric.gts], [len(boxes.frames) for boxes in gt_boxes])
    gts = Boxes(*map(np.concatenate, zip(*gt_boxes, strict=True)))
    order = np.argsort(gts.frames, kind='stable')
    gts, columns = take(gts, order), columns[order]
    shares, thr = {}, first_threshold(metric)
    for column, name in metric.class_names.items():
        is_own = columns == column
        if is_own.any():
            boxes = metric.found(detections, column)
            types = box_error_types(boxes, gts, is_own, metric.frame_limit, thr)
            types = types[by_score(boxes.scores)]
            shares[name] = error_shares(types, is_own.sum(), ErrorShares)
    return shares


def box_error_types(
    boxes: Boxes, gts: Boxes, is_own: np.ndarray, frame_limit: int, iou_thr: float
) -> np.ndarray:
    """The type (N,) of each detection of a class, the first of these that holds.

    ap: it is right; localisation: its frame shows its class (also when that ground truth
    is claimed); classification: it lies on another class; other: its frame shows only
    other classes, elsewhere; time: its video shows its class in other frames; other.

    Args:
        boxes: N detections of the class.
        gts: M ground truths of all classes, by frame.
        is_own: (M,) which of them are of the class.
        frame_limit: Frame numbers of a video, video * frame_limit + frame.
        iou_thr: IoU that makes a detection right.
    """
    protocol = FRAME_PROTOCOLS['act']
    pairs = frame_pairs(boxes, gts, pixel=protocol.pixel, min_iou=iou_thr)
    class_pairs = take(pairs, is_own[pairs.gts])
    options = dict(matching=protocol.matching)
    right = match(boxes.scores, boxes.frames, class_pairs, iou_thr, **options)
    on_other = np.zeros(len(boxes.frames), dtype=bool)
    on_other[pairs.detections[~is_own[pairs.gts]]] = True
    own_frames, other_frames = gts.frames[is_own], gts.frames[~is_own]
    cases = {
        'ap': right,
        'localisation': np.isin(boxes.frames, own_frames),
        'classification': on_other,
        'other': np.isin(boxes.frames, other_frames),
        'time': np.isin(boxes.frames // frame_limit, own_frames // frame_limit),
    }
    return np.select([*cases.values()], [*cases], 'other')


def tube_error_shares(
    metric: VideoMAPMetric, detections: Detections | Mapping[int, Tubes]
) -> dict[str, TubeErrorShares]:
    """Shares at the first threshold, by label with ground truth."""
    shares, thr, measures = {}, first_threshold(metric), metric.measures()
    for column, name in metric.class_names.items():
        class_gts = metric.gts[column]
        num_gts = len(class_gts.sequences)
        if num_gts:
            tubes = metric.tubes(detections, column)
            right = metric.right(metric.match_tubes(tubes, column, min_iou=thr), thr)
            other_gts = [gts for other, gts in metric.gts.items() if other != column]
            best = [
                best_overlaps(tubes, gts, **measures)
                for gts in ([class_gts], other_gts)
            ]
            types = tube_error_types(right, *best, thr)[by_score(tubes.scores)]
            shares[name] = error_shares(
                types, num_gts, TubeErrorShares, ap_mode=metric.protocol.ap
            )
    return shares


def best_overlaps(tubes: Tubes, gts: Sequence[Tubes], **measures: float) -> Overlaps:
    """Overlaps of N tubes with the true tube of their sequence that each overlaps most."""
    best = np.zeros((3, len(tubes.lengths)))
    for gt_tubes in gts:
        for _, place, overlaps in overlaps_by_gt(tubes, gt_tubes, **measures):
            better = overlaps.ious > Overlaps(*best[:, place]).ious
            best[:, place] = np.where(better, overlaps, best[:, place])
    return Overlaps(*best)


def tube_error_types(
    right: np.ndarray,
    class_overlaps: Overlaps,
    other_overlaps: Overlaps,
    iou_thr: float,
) -> np.ndarray:
    """The type (N,) of each tube, a field of ``TubeErrorShares``; the first that holds.

    repeat: it overlaps a tube of its class enough, which another has claimed;
    classification: it overlaps one of another class enough; extra: it overlaps none. For
    the others the tube that they overlap most decides: the class is wrong if that is of
    another one, time or localisation if spans or boxes overlap by less than
    sqrt(iou_thr). Of equal overlaps that with the class decides, which the published
    scripts leave to the order of the labels.

    Args:
        right: (N,) bool.
        class_overlaps: (N,), the best with tubes of the class, claimed or not.
        other_overlaps: (N,), with those of all other classes.
        iou_thr: IoU that makes a tube right.
    """
    is_own = class_overlaps.ious >= other_overlaps.ious
    nearest = Overlaps(*np.where(is_own, class_overlaps, other_overlaps))
    in_time = nearest.temporal >= math.sqrt(iou_thr)
    in_place = nearest.spatial + nearest.rounding >= math.sqrt(iou_thr)
    cases = {
        'ap': right,
        'repeat': class_overlaps.reach >= iou_thr,
        'classification': other_overlaps.reach >= iou_thr,
        'extra': nearest.ious == 0,
        'localisation': is_own & in_time,
        'time': is_own & in_place,
        'time_localisation': is_own,
        'classification_localisation': in_time,
        'classification_time': in_place,
    }
    default_type = 'classification_time_localisation'
    return np.select([*cases.values()], [*cases], default_type)


def error_rows(shares: Mapping[str, Shares]) -> list[Row]:
    """A table: the names, a row for each class, the mean over the classes last."""
    table = [[name, *row] for name, row in shares.items()]
    mean = np.mean(list(shares.values()), axis=0).tolist()
    fields = type(next(iter(shares.values())))._fields
    return [['', *fields], *table, ['mean', *mean]]
