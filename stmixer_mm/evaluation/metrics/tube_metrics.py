"""Frame mAP and video mAP on UCF101-24, JHMDB, MultiSports and their like."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.logging import MMLogger

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.datasets.annotations.tube_annotations import (
    TubeAnnotations,
    check_tube_annotations,
    read_tube_annotations,
)
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.functional.average_precision import (
    CLASS_AVERAGES,
    by_score,
    check_choice,
    class_mean,
    first_threshold,
    over_thresholds,
    parse_iou_thrs,
)
from stmixer_mm.evaluation.functional.error_types import (
    ErrorShares,
    error_kinds,
    error_shares,
    format_error_table,
    mean_shares,
)
from stmixer_mm.evaluation.functional.frame_map import Boxes, frame_pairs
from stmixer_mm.evaluation.functional.linking import (
    FRAME_NMS,
    LINKINGS,
    FrameBoxes,
    Linking,
    link_boxes,
    suppress_boxes,
)
from stmixer_mm.evaluation.functional.matching import Pairs
from stmixer_mm.evaluation.functional.protocols import PROTOCOLS
from stmixer_mm.evaluation.functional.tubes import Tubes, join_tubes, tube_pairs
from stmixer_mm.evaluation.metrics.collecting import CollectingMetric
from stmixer_mm.evaluation.metrics.predictions import (
    Actions,
    join_actions,
    join_field,
    select_actions,
)
from stmixer_mm.registry import METRICS

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
    """What is predicted for the test videos: n boxes, by video, then by frame."""

    videos: np.ndarray  # (n,) int, numbers of videos
    frames: np.ndarray  # (n,) int, from 1
    bboxes: np.ndarray  # (n, 4) float64, xyxy in pixels
    actions: Actions  # of which class 1 is label 0

    def of(self, label: int) -> FrameBoxes:
        """Those of one label; a sequence is the number of a video."""
        box, scores = self.actions.of(label + 1)
        return FrameBoxes(
            self.videos[box], self.frames[box], self.bboxes[box], scores.astype(float)
        )


class Matched(NamedTuple):
    """Detections of one label, N boxes or tubes, and what they overlap."""

    groups: np.ndarray  # (N,) int, within which detections are compared with truths
    scores: np.ndarray  # (N,) float
    pairs: Pairs
    num_truths: int


class _TubeMetric(CollectingMetric):
    """What metrics on tube annotations share: ground truth in, detections in, means."""

    def __init__(
        self,
        ann_file: str | Path | Mapping[str, Any] | TubeAnnotations,
        *,
        iou_thrs: float | str | Sequence[float | str],
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
            raise UserError(
                f'split={split} is not in {source}, which has '
                f'{len(truth.test_videos)}; splits are counted from 1.'
            )
        if isinstance(excluded_labels, str):
            check_choice('excluded_labels', excluded_labels, EXCLUDED_LABELS)
            excluded_labels = EXCLUDED_LABELS[excluded_labels]
        unknown = set(excluded_labels) - set(truth.labels)
        if unknown:
            raise UserError(
                f'excluded_labels has {sorted(unknown)}, which {source} does not have; '
                'give a list of labels that it has, or fetch the published file.'
            )
        if 'overall' in truth.labels and per_class:
            raise UserError(
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
        self.num_classes = len(truth.labels) + 1
        self.action_ids = list(range(1, self.num_classes))  # of the score columns
        self.evaluated = [
            number
            for number, label in enumerate(truth.labels)
            if label not in set(excluded_labels)
        ]
        self.videos = tuple(dict.fromkeys(truth.test_videos[split - 1]))
        self.video_numbers = {name: n for n, name in enumerate(self.videos)}
        self._nframes = [truth.nframes[name] for name in self.videos]
        sizes = [truth.resolution[name] for name in self.videos]
        # Of each video, what makes boxes in [0, 1] boxes in pixels.
        self.scales = np.array([(w, h, w, h) for h, w in sizes], dtype=float)
        # Of each label; a sequence is the number of a video.
        self.truths = [
            _truth_tubes(truth, self.videos, label) for label in range(len(self.labels))
        ]
        if not any(len(self.truths[label].sequences) for label in self.evaluated):
            raise UserError(
                f'{source} has no tube of an evaluated label in the test videos of '
                f'split {split}; give the split that is tested, or correct '
                'excluded_labels.'
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
                raise UserError(
                    f'A prediction of {sample["video_id"]} has {self.frame_key}='
                    f'{frame!r}, which is no number of a frame; set frame_key to the '
                    'entry of the samples that counts frames from 1.'
                )
            if video is not None and not 1 <= frame <= self._nframes[video]:
                raise UserError(
                    f'A prediction of {sample["video_id"]} is for frame {frame}, but '
                    f'its frames are numbered from 1 to {self._nframes[video]}; count '
                    'them from 1.'
                )
            result = select_actions(
                sample, self.num_classes, self.score_thr, frame_key=self.frame_key
            )
            del result['scores']
            result.update(video=sample['video_id'], frame=int(frame))
            self.results.append(result)

    def detections(self, results: list[dict]) -> Detections:
        """All detections in the test videos, whatever the order of the results."""
        results = self.take(results)
        # Samplers may repeat a frame; it counts once.
        by_frame = {(r['video'], r['frame']): r for r in results}
        keys = sorted(key for key in by_frame if key[0] in self.video_numbers)
        if by_frame and not keys:
            raise UserError(
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
        count = np.array([len(result['bboxes']) for result in ordered], dtype=int)
        numbers = [self.video_numbers[name] for name, _ in keys]
        videos = np.repeat(np.array(numbers, dtype=int), count)
        frames = np.repeat(np.array([frame for _, frame in keys], dtype=int), count)
        bboxes = join_field(ordered, 'bboxes', (0, 4), np.float32) * self.scales[videos]
        return Detections(videos, frames, bboxes, join_actions(ordered))

    def true_keyframes(self) -> set[str]:
        """Keys of the frames that have a true box, those beyond their video left out.

        As of ``keyframe_key``.
        """
        return {
            keyframe_key(self.videos[video], frame)
            for tubes in self.truths
            for video, frame in zip(
                np.repeat(tubes.sequences, tubes.lengths).tolist(),
                tubes.frames.tolist(),
                strict=True,
            )
            if frame <= self._nframes[video]
        }

    def counts_unannotated(self, key: str) -> bool:
        """Whether detections count in a keyframe without ground truth: of our videos."""
        return key.rpartition(',')[0] in self.video_numbers

    def match(self, detections: Detections, label: int, *, min_iou: float) -> Matched:
        """Detections of a label, paired with the truths that overlap by min_iou."""
        raise NotImplementedError

    def _aps(self, detections: Detections) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """APs (classes, thresholds), ground truths and detections of each class."""
        lowest = min(min(thrs) for thrs in self.iou_thrs.values())
        aps, num_truths, num_found = [], [], []
        for label in self.evaluated:
            found = self.match(detections, label, min_iou=lowest)
            ap_at = partial(self._ap, found, by_score(found.scores))
            aps.append(over_thresholds(ap_at, self.iou_thrs))
            num_truths.append(found.num_truths)
            num_found.append(len(found.scores))
        return np.array(aps), np.array(num_truths), np.array(num_found)

    def _ap(self, found: Matched, order: np.ndarray, iou_thr: float) -> float:
        """AP of a label, whose detections are ordered by score."""
        right = self.protocol.right(found.scores, found.groups, found.pairs, iou_thr)
        return self.protocol.average_precision(right[order], found.num_truths)

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
        iou_thrs: float | str | Sequence[float | str] = (0.5,),
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
        last_true = max(tubes.frames.max(initial=0) for tubes in self.truths)
        self._frame_limit = max(*self._nframes, last_true) + 1
        self.error_analysis = error_analysis

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """All values over the collected detections."""
        detections = self.detections(results)
        values = self._values(*self._aps(detections), unit='boxes')
        if self.error_analysis:
            shares = self.error_shares(detections)
            MMLogger.get_current_instance().info('\n' + format_error_table(shares))
            mean = mean_shares(shares)._asdict()
            values.update({f'error/{name}': share for name, share in mean.items()})
        return values

    def match(self, detections: Detections, label: int, *, min_iou: float) -> Matched:
        """Boxes of a label; a group is a frame, see ``frame_numbers``."""
        found, truths = self.found(detections, label), self.truth_boxes(label)
        pairs = frame_pairs(found, truths, pixel=self.protocol.pixel, min_iou=min_iou)
        return Matched(found.frames, found.scores, pairs, len(truths.frames))

    def found(self, detections: Detections, label: int) -> Boxes:
        """Boxes of a label that the suppression leaves, by frame."""
        boxes = detections.of(label)
        if self.nms is not None:
            boxes = suppress_boxes(boxes, FRAME_NMS[self.nms])
        frames = self.frame_numbers(boxes.sequences, boxes.frames)
        found = Boxes(frames, boxes.bboxes, boxes.scores)
        if self.nms is None:
            return found
        order = np.argsort(frames, kind='stable')
        return Boxes(*(field[order] for field in found))

    def frame_numbers(self, videos: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """One number for a frame and the video that it is of."""
        return videos * self._frame_limit + frames

    def split_frame_number(self, number: int) -> tuple[str, int]:
        """The video and the frame of a number."""
        video, frame = divmod(number, self._frame_limit)
        return self.videos[video], frame

    def error_shares(self, detections: Detections) -> dict[str, ErrorShares]:
        """ACT's kinds of errors at the first threshold, by label with ground truth."""
        thr = first_threshold(self.iou_thrs)
        own_truths = [self.truth_boxes(label) for label in range(len(self.labels))]
        frames = np.concatenate([truths.frames for truths in own_truths])
        order = np.argsort(frames, kind='stable')
        truths = Boxes(
            frames[order],
            np.concatenate([truths.bboxes for truths in own_truths])[order],
            np.ones(len(order)),
        )
        counts = [len(truths.frames) for truths in own_truths]
        truth_labels = np.repeat(np.arange(len(counts)), counts)[order]
        shares = {}
        for label in self.evaluated:
            if counts[label]:
                kinds = self._error_kinds(
                    self.found(detections, label),
                    own_truths[label],
                    truths,
                    truth_labels != label,
                    iou_thr=thr,
                )
                shares[self.labels[label]] = error_shares(kinds, counts[label])
        return shares

    def _error_kinds(
        self,
        found: Boxes,
        own: Boxes,
        truths: Boxes,
        is_other: np.ndarray,
        *,
        iou_thr: float,
    ) -> np.ndarray:
        """Kinds (N,) of detections of one label by descending score.

        Args:
            found: N detections.
            own: Ground truth of their label.
            truths: M ground truths of all labels.
            is_other: (M,) which of them are of other labels.
            iou_thr: What makes a detection right.
        """
        protocol = PROTOCOLS['act']
        pairs = frame_pairs(found, own, pixel=protocol.pixel, min_iou=iou_thr)
        right = protocol.right(found.scores, found.frames, pairs, iou_thr)
        all_pairs = frame_pairs(found, truths, pixel=protocol.pixel, min_iou=iou_thr)
        others = is_other[all_pairs.truths]
        other_iou = np.zeros(len(found.frames))
        np.maximum.at(other_iou, all_pairs.detections[others], all_pairs.ious[others])
        own_in_frame = _counts_of(found.frames, own.frames)
        kinds = error_kinds(
            right,
            own_in_frame > 0,
            _counts_of(found.frames, truths.frames) > own_in_frame,
            other_iou,
            np.isin(found.frames // self._frame_limit, own.frames // self._frame_limit),
            iou_thr=iou_thr,
        )
        return kinds[by_score(found.scores)]

    def truth_boxes(self, label: int) -> Boxes:
        """Boxes of all true tubes of a label, by frame."""
        tubes = self.truths[label]
        videos = np.repeat(tubes.sequences, tubes.lengths)
        frames = self.frame_numbers(videos, tubes.frames)
        order = np.argsort(frames, kind='stable')
        return Boxes(frames[order], tubes.bboxes[order], np.ones(len(order)))


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
        iou_thrs: float | str | Sequence[float | str] = (0.5, 0.2, 0.75, '0.5:0.95'),
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
        return self._values(*self._aps(self.detections(results)), unit='tubes')

    def match(self, detections: Detections, label: int, *, min_iou: float) -> Matched:
        """Linked tubes of a label; a group is a video."""
        tubes, truths = self.tubes(detections, label), self.truths[label]
        pairs = tube_pairs(
            tubes,
            truths,
            pixel=self.protocol.pixel,
            frame=self.protocol.frame,
            min_iou=min_iou,
        )
        return Matched(tubes.sequences, tubes.scores, pairs, len(truths.sequences))

    def tubes(self, detections: Detections, label: int) -> Tubes:
        """Linked tubes of a label; a sequence is the number of a video."""
        return link_boxes(detections.of(label), self.linking)


def parse_linking(linking: str | Mapping[str, Any]) -> Linking:
    """Constants by name, or a dict of those that differ from a named base."""
    changes = {} if isinstance(linking, str) else dict(linking)
    base = linking if isinstance(linking, str) else changes.pop('base', 'act')
    check_choice('linking', base, LINKINGS)
    known = [field.name for field in fields(Linking)]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise UserError(
            f'linking has {unknown[0]!r}; it may have base, {", ".join(known)}.'
        )
    return replace(LINKINGS[base], **changes)


def _truth_tubes(truth: TubeAnnotations, videos: Sequence[str], label: int) -> Tubes:
    """True tubes of a label; a sequence is the position of a video."""
    sequences, arrays = [], []
    for number, name in enumerate(videos):
        tubes = truth.gttubes[name].get(label, ())
        sequences += [number] * len(tubes)
        arrays += tubes
    return join_tubes(sequences, arrays, np.ones(len(arrays)))


def _counts_of(values: np.ndarray, in_sorted: np.ndarray) -> np.ndarray:
    """How often each value (N,) is in a sorted array (M,)."""
    stop = np.searchsorted(in_sorted, values, side='right')
    return stop - np.searchsorted(in_sorted, values, side='left')
