"""Frame mAP and video mAP on UCF101-24, JHMDB, MultiSports and their like."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.logging import MMLogger

from stmixer_mm.datasets.tube_annotations import (
    TubeAnnotations,
    check_tube_annotations,
    read_tube_annotations,
)
from stmixer_mm.registry import METRICS

from .average_precision import CLASS_AVERAGES, by_score, check_choice, class_mean
from .collecting import CollectingMetric
from .errors import (
    ErrorShares,
    error_kinds,
    error_shares,
    format_error_table,
    mean_shares,
)
from .frame_map import Boxes, frame_pairs
from .linking import (
    FRAME_NMS,
    LINKINGS,
    FrameBoxes,
    Linking,
    link_boxes,
    suppress_boxes,
)
from .matching import Pairs
from .predictions import join_field, select_actions
from .protocols import PROTOCOLS
from .tubes import Tubes, join_tubes, tube_pairs

# Labels that published evaluators leave out, by name.
EXCLUDED_LABELS = {
    # MultiSports' evaluators and mmaction2's.
    'multisports': (
        'aerobic kick jump',
        'aerobic off axis jump',
        'aerobic butterfly jump',
        'aerobic balance turn',
        'basketball save',
        'basketball jump ball',
    )
}


class Detections(NamedTuple):
    """Detected actions of all test videos, by video, then by frame.

    Videos, frames and labels are numbers; N of them.
    """

    videos: np.ndarray  # (N,) int
    frames: np.ndarray  # (N,) int, from 1
    labels: np.ndarray  # (N,) int, from 0
    bboxes: np.ndarray  # (N, 4) float64, xyxy in pixels
    scores: np.ndarray  # (N,) float


class _TubeMetric(CollectingMetric):
    """What metrics on tube annotations share: ground truth in, detections in, means."""

    def __init__(
        self,
        ann_file: str | Path | Mapping[str, Any] | TubeAnnotations,
        *,
        iou_thrs: Sequence[float | str],
        split: int = 1,
        protocol: str = 'act',
        class_average: str = 'truth',
        excluded_labels: str | Sequence[str] = (),
        score_thr: float = 0.01,
        frame_key: str = 'timestamp',
        per_class: bool = True,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        check_choice('protocol', protocol, PROTOCOLS)
        check_choice('class_average', class_average, CLASS_AVERAGES)
        if isinstance(ann_file, str | Path):
            source, truth = ann_file, read_tube_annotations(ann_file)
        else:
            source = 'The ground truth'
            truth = check_tube_annotations(ann_file, source=source)
        if not 1 <= split <= len(truth.test_videos):
            raise ValueError(
                f'split={split} is not in {source}, which has '
                f'{len(truth.test_videos)}; splits are counted from 1.'
            )
        if isinstance(excluded_labels, str):
            check_choice('excluded_labels', excluded_labels, EXCLUDED_LABELS)
            excluded_labels = EXCLUDED_LABELS[excluded_labels]
        unknown = set(excluded_labels) - set(truth.labels)
        if unknown:
            raise ValueError(
                f'excluded_labels has {sorted(unknown)}, which {source} does not have; '
                'correct it.'
            )
        if 'overall' in truth.labels and per_class:
            raise ValueError(
                f"{source} has the label 'overall', which is a value of "
                f'{type(self).__name__}; rename it or set per_class=False.'
            )
        self.iou_thrs = parse_iou_thrs(iou_thrs)
        self.protocol = PROTOCOLS[protocol]
        self.class_average = class_average
        self.score_thr = score_thr
        self.frame_key = frame_key
        self.per_class = per_class
        self.labels = truth.labels
        self.evaluated = [
            number
            for number, label in enumerate(truth.labels)
            if label not in set(excluded_labels)
        ]
        self.videos = tuple(dict.fromkeys(truth.test_videos[split - 1]))
        self.video_numbers = {name: n for n, name in enumerate(self.videos)}
        self._nframes = [truth.nframes[name] for name in self.videos]
        self._resolution = [truth.resolution[name] for name in self.videos]
        self.truths = _all_truths(truth, self.videos)
        if not len(self.truths.sequences):
            raise ValueError(
                f'{source} has no tube in the test videos of split {split}; give the '
                'split that is tested.'
            )

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep the detections of a batch, those above score_thr of each class.

        Raises:
            ValueError: a sample has no whole frame number within its video, or scores
                of another width or that are not numbers.
        """
        for sample in data_samples:
            video = self.video_numbers.get(sample['video_id'])
            frame = sample.get(self.frame_key)
            if not isinstance(frame, int | float | np.number) or frame % 1 != 0:
                raise ValueError(
                    f'A prediction of {sample["video_id"]} has {self.frame_key}='
                    f'{frame!r}, which is no number of a frame; set frame_key to the '
                    'entry of the samples that counts frames from 1.'
                )
            if video is not None and not 1 <= frame <= self._nframes[video]:
                raise ValueError(
                    f'A prediction of {sample["video_id"]} is for frame {frame}, but '
                    f'its frames are numbered from 1 to {self._nframes[video]}; count '
                    'them from 1.'
                )
            result = select_actions(
                sample, len(self.labels) + 1, self.score_thr, frame_key=self.frame_key
            )
            del result['scores']
            result.update(video=sample['video_id'], frame=int(frame))
            self.results.append(result)

    def detections(self, results: list[dict]) -> Detections:
        """All detections in the test videos, whatever the order of the results."""
        # Samplers may repeat a frame; it counts once.
        by_frame = {(r['video'], r['frame']): r for r in results}
        keys = sorted(key for key in by_frame if key[0] in self.video_numbers)
        if by_frame and not keys:
            raise ValueError(
                f'None of the predicted videos, as {next(iter(by_frame))[0]!r}, is a '
                f'test video of the ground truth, as {self.videos[0]!r}; give the '
                'ground truth of the tested dataset and split.'
            )
        without = len(self.videos) - len({name for name, _ in keys})
        if without:
            MMLogger.get_current_instance().warning(
                f'{without} of the {len(self.videos)} test videos have no prediction; '
                'what they show counts as missed.'
            )
        ordered = [by_frame[key] for key in keys]
        count = np.array([len(result['box']) for result in ordered], dtype=int)
        numbers = [self.video_numbers[name] for name, _ in keys]
        videos = np.repeat(np.array(numbers, dtype=int), count)
        frames = np.repeat(np.array([frame for _, frame in keys], dtype=int), count)
        scales = np.array([(w, h, w, h) for h, w in self._resolution], dtype=float)
        num_boxes = np.array([len(result['bboxes']) for result in ordered], dtype=int)
        box = join_field(ordered, 'box', (0,), np.int32)
        box = box + np.repeat(np.cumsum(num_boxes) - num_boxes, count)
        bboxes = join_field(ordered, 'bboxes', (0, 4), np.float32)[box] * scales[videos]
        labels = join_field(ordered, 'class', (0,), np.int16).astype(int) - 1
        scores = join_field(ordered, 'score', (0,), np.float32)
        return Detections(videos, frames, labels, bboxes, scores)

    def _aps(
        self,
        labels: np.ndarray,
        scores: np.ndarray,
        groups: np.ndarray,
        pairs: Pairs,
        truth_labels: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """APs (classes, thresholds), ground truths and detections of each class."""
        single = sorted({thr for thrs in self.iou_thrs.values() for thr in thrs})
        order = by_score(scores)
        labels_in_order = labels[order]
        num_truths = np.bincount(truth_labels, minlength=len(self.labels))
        num_found = np.bincount(labels, minlength=len(self.labels))
        of_label = [np.flatnonzero(labels_in_order == n) for n in self.evaluated]
        aps = {}
        for thr in single:
            right = self.protocol.right(scores, groups, pairs, thr)[order]
            aps[thr] = [
                self.protocol.average_precision(right[index], num_truths[number])
                for number, index in zip(self.evaluated, of_label, strict=True)
            ]
        means = [
            np.mean([aps[thr] for thr in thrs], axis=0)
            for thrs in self.iou_thrs.values()
        ]
        counted = self.evaluated
        return np.array(means).T, num_truths[counted], num_found[counted]

    def _lowest_thr(self) -> float:
        return min(thr for thrs in self.iou_thrs.values() for thr in thrs)

    def _values(
        self, aps: np.ndarray, num_truths: np.ndarray, num_found: np.ndarray, unit: str
    ) -> dict[str, float]:
        """Means over the classes, then the APs of each class at the first threshold."""
        overall = class_mean(aps, num_truths, num_found, over=self.class_average)
        names = list(self.iou_thrs)
        values = {
            f'overall@{name}': float(mean)
            for name, mean in zip(names, overall, strict=True)
        }
        if self.per_class:
            labels = [self.labels[number] for number in self.evaluated]
            width = max(len(label) for label in (*labels, 'class'))
            heads = ''.join(f'{f"AP@{name}":>14}' for name in names)
            lines = [f'{"class":<{width}}{"true":>9}{unit:>10}{heads}']
            rows = zip(labels, num_truths, num_found, aps, strict=True)
            for label, count, found, row in rows:
                cells = ''.join(f'{ap:14.4f}' if count else f'{"-":>14}' for ap in row)
                lines.append(f'{label:<{width}}{count:>9}{found:>10}{cells}')
                if count:
                    values[f'{label}@{names[0]}'] = float(row[0])
            MMLogger.get_current_instance().info('\n' + '\n'.join(lines))
        return values


@METRICS.register_module()
class TubeFrameMAPMetric(_TubeMetric):
    """Frame mAP against tubes: AP of each class over all frames of the test videos.

    Every box of every true tube counts, and every detection in a test video, also in
    frames without ground truth. Predictions are ``pred_instances`` with ``bboxes``
    (n, 4) xyxy in [0, 1] and ``scores`` (n, labels + 1), column 0 the dummy. Frames
    without a prediction count as missed, unknown videos do not count.

    Values: ``overall@thr`` for each threshold, ``<label>@thr`` for the first, and with
    ``error_analysis`` the means of ACT's kinds of errors at the first,
    ``error/localisation`` and so on, which add up to 1 - ``error/ap``.

    Args:
        ann_file: Ground-truth pickle, see ``read_tube_annotations``, or what is in it.
        iou_thrs: IoU thresholds; ``'0.5:0.95'`` is the mean over a range in steps of
            0.05, ``'0.1:0.9:0.1'`` with a step of one's own.
        split: Split whose test videos are evaluated, from 1.
        protocol: ``'act'`` (UCF101-24, JHMDB) or ``'multisports'``, see ``PROTOCOLS``.
        class_average: Classes that the mean is over, see ``CLASS_AVERAGES``.
        excluded_labels: Labels that do not count, or ``'multisports'`` for those that
            its evaluators leave out.
        score_thr: Scores up to it do not count as detections (0.01 in ACT's scripts).
        frame_key: Entry of a sample that is the number of its frame, from 1.
        per_class: Return and log the AP of each class too.
        nms: Suppression among the boxes of a frame and class before they count:
            ``'act'`` (hard, IoU 0.3) or ``'moc'`` (soft, 0.6), as their scripts do
            for the boxes of overlapping tubelets, see ``FRAME_NMS``; None (the
            default) takes detections as they are, as MultiSports' evaluators do.
        error_analysis: Say what is wrong with the detections, see ``errors``; it
            follows ACT's rules, whatever the protocol.
        collect_device, prefix, collect_dir: As in mmengine's ``BaseMetric``, but see
            :class:`~stmixer_mm.evaluation.collecting.CollectingMetric`.

    Raises:
        FileNotFoundError, ValueError: the ground truth is missing or faulty, an
            argument does not fit it, or predictions do not.
    """

    default_prefix = 'frame_mAP'

    def __init__(
        self,
        ann_file: str | Path | Mapping[str, Any] | TubeAnnotations,
        *,
        iou_thrs: Sequence[float | str] = (0.5,),
        split: int = 1,
        protocol: str = 'act',
        class_average: str = 'truth',
        excluded_labels: str | Sequence[str] = (),
        score_thr: float = 0.01,
        frame_key: str = 'timestamp',
        per_class: bool = True,
        nms: str | None = None,
        error_analysis: bool = False,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(
            ann_file,
            iou_thrs=iou_thrs,
            split=split,
            protocol=protocol,
            class_average=class_average,
            excluded_labels=excluded_labels,
            score_thr=score_thr,
            frame_key=frame_key,
            per_class=per_class,
            collect_device=collect_device,
            prefix=prefix,
            collect_dir=collect_dir,
        )
        check_choice('nms', nms, (*FRAME_NMS, None))
        self.nms = nms
        self.error_analysis = error_analysis

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """All values over the collected detections."""
        detections = self.detections(results)
        found, truths, truth_labels = self.by_frame(detections)
        pairs = frame_pairs(
            found, truths, pixel=self.protocol.pixel, min_iou=self._lowest_thr()
        )
        aps = self._aps(
            detections.labels, found.scores, found.frames, pairs, truth_labels
        )
        values = self._values(*aps, unit='boxes')
        if self.error_analysis:
            shares = self.error_shares(detections)
            MMLogger.get_current_instance().info('\n' + format_error_table(shares))
            mean = mean_shares(shares)._asdict()
            values.update({f'error/{name}': share for name, share in mean.items()})
        return values

    def detections(self, results: list[dict]) -> Detections:
        """All detections in the test videos that the suppression leaves."""
        found = super().detections(results)
        if self.nms is None:
            return found
        num_labels = len(self.labels)
        boxes = suppress_boxes(
            FrameBoxes(
                found.videos * num_labels + found.labels,
                found.frames,
                found.bboxes,
                found.scores.astype(float),
            ),
            FRAME_NMS[self.nms],
        )
        videos, labels = np.divmod(boxes.sequences, num_labels)
        order = np.lexsort((boxes.frames, videos))
        return Detections(
            videos[order],
            boxes.frames[order],
            labels[order],
            boxes.bboxes[order],
            boxes.scores[order],
        )

    def error_shares(self, detections: Detections) -> dict[str, ErrorShares]:
        """ACT's kinds of errors at the first threshold, by label with ground truth."""
        protocol, thr = PROTOCOLS['act'], next(iter(self.iou_thrs.values()))[0]
        found, truths, truth_labels = self.by_frame(detections)
        pairs = frame_pairs(found, truths, pixel=protocol.pixel, min_iou=thr)
        right = protocol.right(found.scores, found.frames, pairs, thr)

        num_labels = len(self.labels)
        frame, true_frame = found.frames // num_labels, truths.frames // num_labels
        truths_in_frame = _counts_of(frame, true_frame)
        own_in_frame = _counts_of(found.frames, truths.frames)
        others = frame_pairs(
            found._replace(frames=frame),
            truths._replace(frames=true_frame),
            pixel=protocol.pixel,
            min_iou=thr,
        )
        differ = detections.labels[others.detections] != truth_labels[others.truths]
        other_iou = np.zeros(len(frame))
        np.maximum.at(other_iou, others.detections[differ], others.ious[differ])
        kinds = error_kinds(
            right,
            own_in_frame > 0,
            truths_in_frame > own_in_frame,
            other_iou,
            _counts_of(
                detections.videos * num_labels + detections.labels,
                self.truths.sequences,
            )
            > 0,
            iou_thr=thr,
        )

        order = by_score(found.scores)
        labels, kinds = detections.labels[order], kinds[order]
        num_truths = np.bincount(truth_labels, minlength=num_labels)
        return {
            self.labels[number]: error_shares(
                kinds[labels == number], num_truths[number]
            )
            for number in self.evaluated
            if num_truths[number]
        }

    def by_frame(self, detections: Detections) -> tuple[Boxes, Boxes, np.ndarray]:
        """Detections, ground truth sorted by frame, and the labels of the latter.

        ``frames`` is the number of a frame in all videos, times labels, plus label.
        """
        num_labels = len(self.labels)
        sequence = np.repeat(self.truths.sequences, self.truths.lengths)
        videos, labels = sequence // num_labels, sequence % num_labels
        limit = max(max(self._nframes), self.truths.frames.max()) + 1
        true_frames = (videos * limit + self.truths.frames) * num_labels + labels
        order = np.argsort(true_frames, kind='stable')
        frames = detections.videos * limit + detections.frames
        return (
            Boxes(
                frames * num_labels + detections.labels,
                detections.bboxes,
                detections.scores,
            ),
            Boxes(true_frames[order], self.truths.bboxes[order], np.ones(len(order))),
            labels[order],
        )


@METRICS.register_module()
class VideoMAPMetric(_TubeMetric):
    """Video mAP: AP of each class over tubes, linked from the boxes of all frames.

    A tube is right if it overlaps a true one by the threshold in space and time, see
    ``tube_iou``. Predictions are as in ``TubeFrameMAPMetric``, of every frame or of
    some up to ``end_after`` apart.

    Values: ``overall@thr`` for each threshold and ``<label>@thr`` for the first.

    Args:
        ann_file, split, protocol, class_average, excluded_labels, score_thr,
            frame_key, per_class, collect_device, prefix, collect_dir: As in
            ``TubeFrameMAPMetric``.
        iou_thrs: IoU thresholds and ranges, as there; the first is the one of the
            values by label.
        linking: Constants of the linking: the name of published ones, see
            ``LINKINGS``, or a dict with some of ``Linking``'s, where ``base`` may name
            those that the rest are taken from (``'act'``).

    Raises:
        FileNotFoundError, ValueError: as in ``TubeFrameMAPMetric``, or ``linking`` has
            an unknown constant.
    """

    default_prefix = 'video_mAP'

    def __init__(
        self,
        ann_file: str | Path | Mapping[str, Any] | TubeAnnotations,
        *,
        iou_thrs: Sequence[float | str] = (0.5, 0.2, 0.75, '0.5:0.95'),
        split: int = 1,
        protocol: str = 'act',
        linking: str | Mapping[str, Any] = 'act',
        class_average: str = 'truth',
        excluded_labels: str | Sequence[str] = (),
        score_thr: float = 0.01,
        frame_key: str = 'timestamp',
        per_class: bool = True,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(
            ann_file,
            iou_thrs=iou_thrs,
            split=split,
            protocol=protocol,
            class_average=class_average,
            excluded_labels=excluded_labels,
            score_thr=score_thr,
            frame_key=frame_key,
            per_class=per_class,
            collect_device=collect_device,
            prefix=prefix,
            collect_dir=collect_dir,
        )
        self.linking = parse_linking(linking)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """All values over the collected detections."""
        tubes = self.tubes(self.detections(results))
        pairs = tube_pairs(
            tubes,
            self.truths,
            pixel=self.protocol.pixel,
            frame=self.protocol.frame,
            min_iou=self._lowest_thr(),
        )
        num_labels = len(self.labels)
        aps = self._aps(
            tubes.sequences % num_labels,
            tubes.scores,
            tubes.sequences,
            pairs,
            self.truths.sequences % num_labels,
        )
        return self._values(*aps, unit='tubes')

    def tubes(self, detections: Detections) -> Tubes:
        """Linked tubes; a sequence is the number of a video, times labels, plus label."""
        sequences = detections.videos * len(self.labels) + detections.labels
        boxes = FrameBoxes(
            sequences,
            detections.frames,
            detections.bboxes,
            detections.scores.astype(float),
        )
        return link_boxes(boxes, self.linking)


def parse_iou_thrs(thrs: Sequence[float | str]) -> dict[str, tuple[float, ...]]:
    """Name -> IoU thresholds whose APs are averaged.

    >>> parse_iou_thrs([0.5, '0.1:0.3:0.1'])
    {'0.5': (0.5,), '0.1:0.3:0.1': (0.1, 0.2, 0.30000000000000004)}
    """
    parsed = {}
    for thr in thrs:
        try:
            values = _thresholds(*map(float, str(thr).split(':')))
        except (TypeError, ValueError, ZeroDivisionError):
            values = ()
        if not values or not all(0 < value <= 1 for value in values):
            raise ValueError(
                f'iou_thrs has {thr!r}; write numbers in (0, 1], or ranges as '
                "'0.5:0.95' or '0.1:0.9:0.1'."
            )
        parsed[thr if isinstance(thr, str) else f'{thr:g}'] = values
    if not parsed:
        raise ValueError('iou_thrs is empty; give at least one IoU threshold.')
    return parsed


def _thresholds(
    first: float, last: float | None = None, step: float = 0.05
) -> tuple[float, ...]:
    if last is None:
        return (first,)
    return tuple(first + step * i for i in range(round((last - first) / step) + 1))


def parse_linking(linking: str | Mapping[str, Any]) -> Linking:
    """Constants by name, or a dict of those that differ from a named base."""
    changes = {} if isinstance(linking, str) else dict(linking)
    base = linking if isinstance(linking, str) else changes.pop('base', 'act')
    check_choice('linking', base, LINKINGS)
    known = [field.name for field in fields(Linking)]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise ValueError(
            f'linking has {unknown[0]!r}; it may have base, {", ".join(known)}.'
        )
    return replace(LINKINGS[base], **changes)


def _all_truths(truth: TubeAnnotations, videos: Sequence[str]) -> Tubes:
    """True tubes of some videos, numbered in this order."""
    num_labels = len(truth.labels)
    sequences, arrays = [], []
    for number, name in enumerate(videos):
        for label, tubes in truth.gttubes[name].items():
            sequences += [number * num_labels + label] * len(tubes)
            arrays += tubes
    return join_tubes(sequences, arrays, np.ones(len(arrays)))


def _counts_of(values: np.ndarray, in_sorted: np.ndarray) -> np.ndarray:
    """How often each value (N,) is in a sorted array (M,)."""
    stop = np.searchsorted(in_sorted, values, side='right')
    return stop - np.searchsorted(in_sorted, values, side='left')
