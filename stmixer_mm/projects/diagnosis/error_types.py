"""Error types of the detections of a class: of boxes and of tubes.

N detections of one class; classes, frames and videos are numbers, boxes xyxy in pixels.
Of boxes they are those of Kalogeiton et al., Action tubelet detector for spatio-temporal
action localization, ICCV 2017, by the rules of ``frameAP_error`` in the scripts of MOC
(Li et al., ECCV 2020), which took them from there; of tubes those of MultiSports (Li et
al., ICCV 2021), by the rules of its VideomAP_error.py and of ``videoAP_error`` in its
evaluate_multisports.py, which differ as their protocols do.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

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
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.metrics.predictions import Detections
from stmixer_mm.evaluation.metrics.tube_metric import TubeMetric

BOX_ERRORS = 'localisation', 'classification', 'time', 'other'
TUBE_ERRORS = (
    *('repeat', 'extra', 'localisation', 'classification', 'time'),
    *('classification_time', 'classification_localisation', 'time_localisation'),
    'classification_time_localisation',
)
Shares = dict[str, float]  # AP, errors and missed; by ACT's area they add up to 1


def first_threshold(metric: DetectionMetric) -> float:
    """The IoU threshold of pictures and error types; of a range its first."""
    return next(iter(metric.iou_thrs.values()))[0]


def error_shares(metric: TubeMetric, detections: Detections) -> dict[str, Shares]:
    """Shares of boxes or tubes at the first threshold, by label with ground truth."""
    typed, errors, ap_mode = typed_boxes, BOX_ERRORS, 'act'
    if isinstance(metric, VideoMAPMetric):
        typed, errors, ap_mode = typed_tubes, TUBE_ERRORS, metric.protocol.ap
    return {
        name: shares_of(types, num_gts, errors, ap_mode=ap_mode)
        for name, types, num_gts in typed(metric, detections)
    }


def shares_of(
    types: np.ndarray, num_gts: int, errors: Sequence[str], *, ap_mode: str
) -> Shares:
    """AP and errors of one class.

    Each error is the area under its share of the detections over recall; missed is what
    recall lacks to 1. By ACT's rule they add up to 1 with AP; under ``'interpolated'``
    each share has an envelope of its own, so that they are more.

    Args:
        types: (N,) of the detections by descending score, ``'ap'`` or an error.
        num_gts: Ground truths of the class, at least 1.
        errors: ``BOX_ERRORS`` or ``TUBE_ERRORS``.
        ap_mode: A name of ``AP_MODES``.
    """
    right, ranks = types == 'ap', np.arange(1, len(types) + 1)
    shares = {'ap': average_precision(right, num_gts, mode=ap_mode)}
    for error in errors:
        curve = np.cumsum(types == error) / ranks
        shares[error] = area(curve, right, num_gts, mode=ap_mode)
    shares['missed'] = float(1 - right.sum() / num_gts)
    return shares


Typed = Iterator[tuple[str, np.ndarray, int]]


def typed_boxes(metric: TubeFrameMAPMetric, detections: Detections) -> Typed:
    """Label, types (N,) by descending score, and number of ground truths."""
    gt_boxes = [metric.gt_boxes(column) for column in metric.gts]
    columns = np.repeat([*metric.gts], [len(boxes.frames) for boxes in gt_boxes])
    gts = Boxes(*map(np.concatenate, zip(*gt_boxes, strict=True)))
    order = np.argsort(gts.frames, kind='stable')
    gts, columns = take(gts, order), columns[order]
    for column, name in metric.class_names.items():
        is_own = columns == column
        if is_own.any():
            boxes = metric.class_boxes(detections, column)
            types = box_error_types(
                boxes, gts, is_own, metric.frame_limit, first_threshold(metric)
            )
            yield name, types[by_score(boxes.scores)], is_own.sum()


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


def typed_tubes(
    metric: VideoMAPMetric, detections: Detections | Mapping[int, Tubes]
) -> Typed:
    """Label, types (N,) by descending score, and number of ground truths."""
    thr, measures = first_threshold(metric), metric.measures()
    for column, name in metric.class_names.items():
        class_gts = metric.gts[column]
        if len(class_gts.sequences):
            tubes = metric.tubes(detections, column)
            right = metric.right(metric.match_tubes(tubes, column, min_iou=thr), thr)
            other_gts = [gts for other, gts in metric.gts.items() if other != column]
            best = [
                best_overlaps(tubes, gts, **measures)
                for gts in ([class_gts], other_gts)
            ]
            types = tube_error_types(right, *best, thr)
            yield name, types[by_score(tubes.scores)], len(class_gts.sequences)


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
    """The type (N,) of each tube, ``'ap'`` or one of ``TUBE_ERRORS``; the first that holds.

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
    table = [[name, *row.values()] for name, row in shares.items()]
    mean = np.mean([row[1:] for row in table], axis=0).tolist()
    return [['', *next(iter(shares.values()))], *table, ['mean', *mean]]
