"""The published evaluators, word by word, in loops.

A detection is (place, score, thing): of a frame and a box, or of a video and a tube.
Ground truth is place -> things.
"""

import numpy as np

UNITS = {'act': 1, 'multisports': 0}  # of a side of one pixel, and of one frame


def box_iou(first, second, pixel):
    x1, y1 = max(first[0], second[0]), max(first[1], second[1])
    x2, y2 = min(first[2], second[2]), min(first[3], second[3])
    intersection = max(0, x2 - x1 + pixel) * max(0, y2 - y1 + pixel)
    areas = [(b[2] - b[0] + pixel) * (b[3] - b[1] + pixel) for b in (first, second)]
    return intersection / (sum(areas) - intersection)


def span_overlaps(first, second, unit):
    """In time and in space; tubes without gaps, rows of frame, x1, y1, x2, y2."""
    low = max(first[0][0], second[0][0])
    high = min(first[-1][0], second[-1][0])
    if high < low:
        return 0.0, 0.0
    union = max(first[-1][0], second[-1][0]) - min(first[0][0], second[0][0]) + unit
    boxes = [{row[0]: row[1:5] for row in tube} for tube in (first, second)]
    span = np.arange(low, high + 1)
    ious = [box_iou(boxes[0][t], boxes[1][t], unit) for t in span]
    return (high - low + unit) / union, np.mean(ious)


def span_tube_iou(first, second, unit):
    temporal, spatial = span_overlaps(first, second, unit)
    return spatial * temporal


def right_of_act(detections, gts, iou, thr):
    free = {place: list(things) for place, things in gts.items()}
    right = []
    for place, _, thing in sorted(detections, key=lambda d: -d[1]):
        ious = [iou(gt, thing) for gt in free.get(place, [])]
        right.append(bool(ious) and max(ious) >= thr)
        if right[-1]:
            del free[place][int(np.argmax(ious))]
    return right


def right_of_voc(detections, gts, iou, thr):
    claimed, right = set(), []
    for place, _, thing in sorted(detections, key=lambda d: -d[1]):
        ious = [iou(gt, thing) for gt in gts.get(place, [])]
        claim = (place, int(np.argmax(ious))) if ious and max(ious) >= thr else None
        right.append(claim is not None and claim not in claimed)
        claimed.add(claim)
    return right


RULES = {'act': right_of_act, 'multisports': right_of_voc}


def area(protocol, values, right, num_gts):
    """Under values after 0, 1, ... detections over their recall."""
    recall = np.cumsum([0, *right]) / num_gts
    heights = [
        (values[i] + values[i - 1]) / 2 if protocol == 'act' else max(values[i:])
        for i in range(1, len(recall))
    ]
    return sum(np.diff(recall) * heights)


def ap(protocol, detections, gts, thr, *, tubes=False):
    def iou(first, second):
        return (span_tube_iou if tubes else box_iou)(first, second, UNITS[protocol])

    right = RULES[protocol](detections, gts, iou, thr)
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return area(protocol, [1, *precision], right, sum(map(len, gts.values())))


def share_of_kind(kinds, kind, num_gts, protocol='act'):
    """The area under the share of a kind among the first 1, 2, ... detections."""
    shares = np.cumsum(np.equal(kinds, kind)) / np.arange(1, len(kinds) + 1)
    return area(protocol, [0, *shares], np.equal(kinds, 'right'), num_gts)


def error_kinds(detections, gttubes, label, thr):
    """Kinds of the detections in MOC's ``frameAP_error``, by descending score."""
    same_class, other_classes = {}, {}
    for video, tubes_of in gttubes.items():
        for number, tubes in tubes_of.items():
            for row in (row for tube in tubes for row in tube):
                boxes = same_class if number == label else other_classes
                boxes.setdefault((video, int(row[0])), []).append(row[1:])
    free = {place: list(boxes) for place, boxes in same_class.items()}
    kinds = []
    for place, _, box in sorted(detections, key=lambda d: -d[1]):
        ious = [box_iou(gt, box, 1) for gt in free.get(place, [])]
        if ious and max(ious) >= thr:
            del free[place][int(np.argmax(ious))]
            kinds.append('right')
        elif place in same_class:
            kinds.append('localisation')
        elif place in other_classes:
            on_other = max(box_iou(gt, box, 1) for gt in other_classes[place]) >= thr
            kinds.append('classification' if on_other else 'other')
        else:
            kinds.append('time' if label in gttubes[place[0]] else 'other')
    return kinds


def tube_error_kinds(detections, gttubes, label, thr, protocol):
    """Kinds of the tubes in MultiSports' ``videoAP_error``, by descending score."""
    unit = UNITS[protocol]

    def iou(first, second):
        return span_tube_iou(first, second, unit)

    true_tubes = {video: tubes.get(label, []) for video, tubes in gttubes.items()}
    all_right = RULES[protocol](detections, true_tubes, iou, thr)
    kinds = []
    ranked = sorted(detections, key=lambda d: -d[1])
    for (video, _, tube), right in zip(ranked, all_right, strict=True):
        ious = [
            (iou(gt, tube), other == label, gt)
            for other, tubes in gttubes[video].items()
            for gt in tubes
        ]
        best, is_same_class, nearest = max(ious, key=lambda candidate: candidate[:2])
        if right:
            kinds.append('right')
        elif any(value >= thr and same for value, same, _ in ious):
            kinds.append('repeat')
        elif any(value >= thr for value, *_ in ious):
            kinds.append('classification')
        elif best == 0:
            kinds.append('extra')
        else:
            temporal, spatial = span_overlaps(nearest, tube, unit)
            words = [] if is_same_class else ['classification']
            if temporal < thr**0.5 and spatial < thr**0.5:
                words += ['time', 'localisation']
            else:
                words.append('localisation' if temporal >= thr**0.5 else 'time')
            kinds.append('_'.join(words))
    return kinds


def mean_iou(first, second, pixel):
    """Of boxes by frame; None where no frame is shared."""
    shared = first.keys() & second.keys()
    ious = [box_iou(first[t], second[t], pixel) for t in shared]
    return sum(ious) / len(ious) if ious else None


def link_tubelets(clips, linking):
    """Tubes [[(score, {frame: box})]] of clips [(begin, the same)] of one sequence."""
    current, finished = [], []
    for begin, tubelets in clips:
        candidates = []
        for tubelet in sorted(tubelets, key=lambda tubelet: -tubelet[0]):
            ious = [mean_iou(tubelet[1], c[1], linking.nms_pixel) for c in candidates]
            if all(iou is None or iou <= linking.nms_iou for iou in ious):
                candidates.append(tubelet)
        candidates = candidates[: linking.top_k]
        for tube in list(current):
            if begin - max(tube[-1][1]) > linking.end_after:
                current.remove(tube)
                finished.append(tube)
        current.sort(key=lambda tube: -np.mean([score for score, _ in tube]))
        for tube in current:
            last, near = tube[-1][1], []
            for tubelet in candidates:
                iou, gap = mean_iou(tubelet[1], last, linking.link_pixel), 0
                if iou is None:
                    gap = min(tubelet[1]) - max(last)
                    ends = tubelet[1][min(tubelet[1])], last[max(last)]
                    iou = box_iou(*ends, linking.link_pixel)
                if iou >= linking.link_iou and gap <= linking.end_after:
                    near.append(tubelet)
            if near:
                best = max(near, key=lambda tubelet: tubelet[0])
                tube.append(best)
                candidates.remove(best)
        current += [[tubelet] for tubelet in candidates]
    return finished + current
