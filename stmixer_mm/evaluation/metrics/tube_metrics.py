"""Frame mAP and video mAP on UCF101-24, JHMDB, MultiSports and their like."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from mmengine.logging import MMLogger

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.datasets.annotations.tube_annotations import (
    TubeAnnotations,
    read_tube_annotations,
)
from stmixer_mm.errors import UserError, choose
from stmixer_mm.evaluation.functional.average_precision import (
    by_score,
    first_threshold,
)
from stmixer_mm.evaluation.functional.error_types import (
    ErrorShares,
    TubeErrorShares,
    error_shares,
    error_types,
    format_error_table,
    mean_shares,
    tube_error_types,
)
from stmixer_mm.evaluation.functional.linking import (
    FRAME_NMS,
    Tubelets,
    parse_linking,
    suppress_tubelets,
)
from stmixer_mm.evaluation.functional.matching import (
    Boxes,
    frame_pairs,
    take,
    whole_pixels,
)
from stmixer_mm.evaluation.functional.protocols import PROTOCOLS
from stmixer_mm.evaluation.functional.tubelet_linking import (
    at_every_frame,
    boxes_where_present,
    link_tubelets,
    tubelets_by_action,
)
from stmixer_mm.evaluation.functional.tubes import (
    Tubes,
    best_overlaps,
    join_tubes,
    tube_pairs,
)
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric, Matched
from stmixer_mm.evaluation.metrics.predictions import (
    Detections,
    Instances,
    join_detections,
    take_boxes,
    to_numpy,
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


class TubeMetric(DetectionMetric):
    """What metrics on tube annotations share: the ground truth, numbers of frames.

    Predictions are ``pred_instances`` with ``bboxes`` (n, 4) xyxy in [0, 1] and
    ``scores`` (n, labels + 1), column 0 the dummy; or of tubelets ``bboxes`` (n, K, 4)
    and ``person_scores`` (n, K), with ``clip_frames`` (K,) in the sample, the numbers of
    the clip's frames. Unknown videos do not count, nor do frames beyond the end of a
    video.

    Args:
        ann_file: Ground-truth pickle, see ``read_tube_annotations``.
        split: Split whose test videos are evaluated, from 1.
        protocol: ``'act'`` (UCF101-24, JHMDB) or ``'multisports'``, see ``PROTOCOLS``.
        excluded_labels: Labels that do not count, or ``'multisports'`` for those that
            its evaluators leave out.
        error_analysis: Say what is wrong with the detections, see ``error_types``.
        shared: Arguments of :class:`DetectionMetric`.
    """

    model_score_thr = 0.01  # as in ACT's scripts
    own_values = frozenset({'overall'})
    unit: str  # what is counted

    def __init__(
        self,
        ann_file: str,
        *,
        split: int = 1,
        protocol: str = 'act',
        excluded_labels: str | Sequence[str] = (),
        error_analysis: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.protocol = choose('protocol', protocol, PROTOCOLS)
        self.error_analysis = error_analysis
        (source,) = self._paths(ann_file)
        truth = read_tube_annotations(source)
        num_splits = len(truth.test_videos)
        if not 1 <= split <= num_splits:
            raise UserError(
                f'split={split} is not in {source}; its splits are 1 to {num_splits}.'
            )
        if isinstance(excluded_labels, str):
            excluded_labels = choose(
                'excluded_labels', excluded_labels, EXCLUDED_LABELS
            )
        unknown = set(excluded_labels) - set(truth.labels)
        if unknown:
            raise UserError(
                f'excluded_labels has {sorted(unknown)}, which {source} does not have; '
                'give a list of labels that it has, or fetch the published file.'
            )
        labels = dict(enumerate(truth.labels, start=1))
        class_names = {
            column: label
            for column, label in labels.items()
            if label not in excluded_labels
        }
        self._set_classes(class_names, list(labels), source=source)
        self.listed_videos = truth.test_videos[split - 1]  # as files number them
        self.videos = tuple(dict.fromkeys(self.listed_videos))
        self.video_numbers = {name: n for n, name in enumerate(self.videos)}
        self.nframes = [truth.nframes[name] for name in self.videos]
        sizes = [truth.resolution[name] for name in self.videos]
        # Of each video, what makes boxes in [0, 1] boxes in pixels.
        self.scales = np.array([(w, h, w, h) for h, w in sizes], dtype=float)
        # By column; a sequence is the number of a video.
        self.gts = {column: self._gt_tubes(truth, column - 1) for column in labels}
        if not any(len(self.gts[column].sequences) for column in class_names):
            raise UserError(
                f'{source} has no tube of an evaluated label in the test videos of '
                f'split {split}; give the split that is tested, or correct '
                'excluded_labels.'
            )
        last_true = max(tubes.frames.max(initial=0) for tubes in self.gts.values())
        # A frame of a video has one number, video * limit + frame.
        self._frame_limit = max(*self.nframes, last_true) + 1

    def _gt_tubes(self, truth: TubeAnnotations, label: int) -> Tubes:
        sequences, arrays = [], []
        for number, name in enumerate(self.videos):
            tubes = truth.gttubes[name].get(label, ())
            sequences += [number] * len(tubes)
            arrays += tubes
        return join_tubes(sequences, arrays, np.ones(len(arrays)))

    def compute_metrics(self, results: list[list[dict]]) -> dict[str, float]:
        detections = self.detections(results)
        values = self._class_values(detections, unit=self.unit)
        if self.error_analysis:
            shares = self.error_shares(detections)
            MMLogger.get_current_instance().info('\n' + format_error_table(shares))
            mean = mean_shares(shares)._asdict()
            values.update({f'error/{name}': share for name, share in mean.items()})
        return values

    def error_shares(self, detections: Detections) -> dict[str, Any]:
        """Shares of error types at the first threshold, by label with ground truth."""
        raise NotImplementedError

    def _join(self, parts: list[dict]) -> Detections:
        # Boxes in the test videos, in pixels of 64 bits.
        by_key = {part['key']: part for part in parts}
        known = self._of_known_videos(by_key)
        keys = sorted(filter(self._is_within, known))
        if beyond := sorted({*known} - {*keys}):
            name, frame = beyond[0][:2]
            MMLogger.get_current_instance().warning(
                f'{len(beyond)} predicted keyframes lie beyond the end of their video, as '
                f'frame {frame} of {name}, which has '
                f'{self.nframes[self.video_numbers[name]]}, and do not count.'
            )
        self._warn_of_missing(keys)
        found = join_detections(
            list(map(self._numbers, keys)),
            [by_key[key] for key in keys],
            self._keyframe_key,
        )
        pixels = found.bboxes * self._frame_scales(found.frames)
        return found._replace(bboxes=whole_pixels(pixels))

    def _of_known_videos(self, keys: Collection[tuple]) -> list[tuple]:
        """The keys, of which the first entry names a video, of test videos."""
        known = [key for key in keys if key[0] in self.video_numbers]
        if keys and not known:
            raise UserError(
                f'None of the predicted videos, as {next(iter(keys))[0]!r}, is a '
                f'test video of the ground truth, as {self.videos[0]!r}; give the '
                'ground truth of the tested dataset and split.'
            )
        return known

    def _warn_of_missing(self, keys: Collection[tuple]) -> None:
        without = len(self.videos) - len({name for name, *_ in keys})
        if without:
            MMLogger.get_current_instance().warning(
                f'{without} of the {len(self.videos)} test videos have no prediction; '
                'what they show counts as missed.'
            )

    def gt_boxes(self, column: int) -> Boxes:
        tubes = self.gts[column]
        videos = np.repeat(tubes.sequences, tubes.lengths)
        frames = videos * self._frame_limit + tubes.frames
        order = np.argsort(frames, kind='stable')
        return take(Boxes(frames, tubes.bboxes, np.ones(len(order))), order)

    def normalise(self, boxes: Boxes) -> np.ndarray:
        return boxes.bboxes / self._frame_scales(boxes.frames)

    def true_keyframes(self) -> set[str]:
        # Tubes may go on beyond their video; nothing is predicted there.
        return {
            self._keyframe_key(number)
            for number in self._true_frames().tolist()
            if number % self._frame_limit <= self.nframes[number // self._frame_limit]
        }

    def knows(self, key: str) -> bool:
        return key.rpartition(',')[0] in self.video_numbers

    def counts_unannotated(self, key: str) -> bool:
        return self.knows(key)

    def _true_frames(self) -> np.ndarray:
        """Numbers of the frames with a tube of any label."""
        numbers = [self.gt_boxes(column).frames for column in self.gts]
        return np.unique(np.concatenate(numbers))

    def _clip(
        self, sample: dict, found: Instances
    ) -> tuple[str, int, np.ndarray, Instances]:
        """Video, frame, and numbers (K,) of the frames of what is found there.

        Of tubelets these are all frames of the clip, also those between the ones that
        the model has seen.
        """
        name, frame = sample['video_id'], sample['timestamp']
        if frame % 1 != 0 or frame < 1:
            raise UserError(
                f'A prediction of {name} has the timestamp {frame:g}, which is not the '
                'number of a frame; number frames in whole numbers from 1.'
            )
        if found.person_scores is None:
            return name, int(frame), np.array([frame], dtype=int), found
        clip_len = found.bboxes.shape[1]
        frames = np.asarray(to_numpy(sample.get('clip_frames')))
        if (
            frames.shape != (clip_len,)
            or frames.dtype.kind not in 'iu'
            or frames[0] < 1
            or (np.diff(frames) < 0).any()
            or frame not in frames
        ):
            raise UserError(
                f'A prediction of {name} has tubelets of {clip_len} frames and '
                f'clip_frames={frames.tolist()}; give the numbers of these frames, from '
                f'1 and ascending, with the timestamp ({frame:g}) among them.'
            )
        table = np.dstack([found.bboxes, found.person_scores])
        scores = found.scores
        if scores.ndim == 3:
            _, scores = at_every_frame(frames, scores)
        every, table = at_every_frame(frames, table)
        tubelets = Instances(table[..., :4], scores, table[..., 4])
        return name, int(frame), np.array(every), tubelets

    def _is_within(self, key: tuple) -> bool:
        name, frame, *_ = key
        return frame <= self.nframes[self.video_numbers[name]]

    def _numbers(self, key: tuple) -> int | np.ndarray:
        """Number of the frame, or numbers of the frames, that a result is of."""
        name, frame, *_ = key
        return self.video_numbers[name] * self._frame_limit + frame

    def _keyframe_key(self, number: int) -> str:
        video, frame = divmod(number, self._frame_limit)
        return keyframe_key(self.videos[video], frame)

    def _frame_scales(self, frames: np.ndarray) -> np.ndarray:
        return self.scales[frames // self._frame_limit]


@METRICS.register_module()
class TubeFrameMAPMetric(TubeMetric):
    """Frame mAP against tubes: AP of each class over all frames of the test videos.

    Every box of every true tube counts. Frames without a prediction count as missed.
    Of tubelets, each box counts in its frame, with the scores of the tubelet times the
    person score of the frame.

    Values: ``overall@thr`` for each threshold, ``<label>@thr`` for the first, and with
    ``error_analysis`` the means of ACT's error types at the first,
    ``error/localisation`` and so on, which add up to 1 - ``error/ap``, whatever the
    protocol.

    Args:
        ann_file: Ground-truth pickle, as in :class:`TubeMetric`.
        frames: Those in which detections count: ``'all'`` frames of the test videos
            (ACT, MOC, MultiSports), or the ``'annotated'`` ones, in which a tube of any
            label has a box (YOWO).
        nms: Suppression among the boxes of a frame and class before they count:
            ``'act'`` (hard, IoU 0.3) or ``'moc'`` (soft, 0.6), as their scripts do
            for the boxes of overlapping tubelets, see ``FRAME_NMS``; None (the
            default) takes detections as they are, as MultiSports' evaluators do.
        shared: Further arguments of :class:`TubeMetric`.
    """

    default_prefix = 'frame_mAP'
    unit = 'boxes'

    def __init__(
        self,
        ann_file: str,
        *,
        frames: str = 'all',
        nms: str | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(ann_file, **shared)
        choose('frames', frames, dict.fromkeys(('all', 'annotated')))
        self.frames = frames
        self.nms = choose('nms', nms, {**FRAME_NMS, None: None})

    def _join(self, parts: list[dict]) -> Detections:
        found = super()._join(parts)
        if self.frames == 'annotated':
            found = take_boxes(found, np.isin(found.frames, self._true_frames()))
        return found

    def counts_unannotated(self, key: str) -> bool:
        return self.frames == 'all' and self.knows(key)

    def _split(
        self, sample: dict, found: Instances
    ) -> Iterator[tuple[tuple, np.ndarray, np.ndarray]]:
        name, _, frames, found = self._clip(sample, found)
        clip = tuple(frames.tolist())
        for entry, frame in enumerate(clip):
            yield (name, frame, clip), *found.at(entry)

    def found(self, detections: Detections, column: int) -> Boxes:
        boxes = detections.of(column)
        if self.nms is None:
            return boxes
        apart = Tubelets(
            np.zeros(len(boxes.frames), dtype=int),
            boxes.frames[:, None],
            boxes.bboxes[:, None],
            boxes.scores.astype(float),
        )
        _, frames, bboxes, scores = suppress_tubelets(apart, self.nms)
        return Boxes(frames[:, 0], bboxes[:, 0], scores)

    def error_shares(self, detections: Detections) -> dict[str, ErrorShares]:
        thr = first_threshold(self.iou_thrs)
        by_column = {column: self.gt_boxes(column) for column in self.gts}
        counts = {column: len(own.frames) for column, own in by_column.items()}
        gts = Boxes(*map(np.concatenate, zip(*by_column.values(), strict=True)))
        order = np.argsort(gts.frames, kind='stable')
        gt_columns = np.repeat(list(counts), list(counts.values()))[order]
        gts = take(gts, order)
        shares = {}
        for column, name in self.class_names.items():
            if counts[column]:
                found = self.found(detections, column)
                types = self._error_types(found, gts, gt_columns == column, iou_thr=thr)
                shares[name] = error_shares(types, counts[column])
        return shares

    def _error_types(
        self, found: Boxes, gts: Boxes, is_own: np.ndarray, *, iou_thr: float
    ) -> np.ndarray:
        """Error types (N,) of detections of one label by descending score.

        Args:
            found: N detections.
            gts: M ground truths of all labels, by frame.
            is_own: (M,) which of them are of the label.
            iou_thr: What makes a detection right.
        """
        protocol, limit = PROTOCOLS['act'], self._frame_limit
        pairs = frame_pairs(found, gts, pixel=protocol.pixel, min_iou=iou_thr)
        own = is_own[pairs.gts]
        right = protocol.claim(found.scores, found.frames, take(pairs, own), iou_thr)
        on_other = np.zeros(len(found.frames), dtype=bool)
        on_other[pairs.detections[~own]] = True
        own_frames, other_frames = gts.frames[is_own], gts.frames[~is_own]
        types = error_types(
            right,
            np.isin(found.frames, own_frames),
            np.isin(found.frames, other_frames),
            on_other,
            np.isin(found.frames // limit, own_frames // limit),
        )
        return types[by_score(found.scores)]


@METRICS.register_module()
class VideoMAPMetric(TubeMetric):
    """Video mAP: AP of each class over tubes, linked from boxes of frames or tubelets.

    A tube is right if it overlaps a true one by the threshold in space and time, see
    ``tube_overlaps``. Predictions are of every frame, or of frames or clips up to
    ``end_after`` apart; clips may overlap.

    Tubes that somebody else has linked count as they are, all of them unless score_thr
    is set: samples with ``video_id`` and ``pred_tubes``, of each tube a dict with its
    ``label``, the number of a score column, ``score``, ``frames`` (m,) in ascending order
    from 1, and ``bboxes`` (m, 4) xyxy in [0, 1].

    Values: ``overall@thr`` for each threshold, ``<label>@thr`` for the first, and with
    ``error_analysis`` the means of MultiSports' error types at the first,
    ``error/repeat`` and so on, by the rules of the protocol.

    Args:
        ann_file: Ground-truth pickle, as in :class:`TubeMetric`.
        linking: Constants of the linking: the name of published ones, see
            ``LINKINGS``, or a dict with some of ``Linking``'s, where ``base`` may name
            those that the rest are taken from (``'act'``).
        iou_thrs: As in :class:`DetectionMetric`.
        shared: Further arguments of :class:`TubeMetric`.
    """

    default_prefix = 'video_mAP'
    unit = 'tubes'

    def __init__(
        self,
        ann_file: str,
        *,
        linking: str | Mapping[str, Any] = 'act',
        iou_thrs: float | str | Sequence[float | str] = (0.5, 0.2, 0.75, '0.5:0.95'),
        **shared: Any,
    ) -> None:
        super().__init__(ann_file, iou_thrs=iou_thrs, **shared)
        self.linking = parse_linking(linking)

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep the detections, or the tubes, of a batch."""
        ready = [sample for sample in data_samples if 'pred_tubes' in sample]
        self.results += [
            [dict(key=(sample['video_id'],), tubes=sample['pred_tubes'])]
            for sample in ready
        ]
        others = [sample for sample in data_samples if 'pred_tubes' not in sample]
        super().process(data_batch, others)

    def error_shares(
        self, detections: Detections | Mapping[int, Tubes]
    ) -> dict[str, TubeErrorShares]:
        thr, shares = first_threshold(self.iou_thrs), {}
        best = partial(best_overlaps, **self._measures())
        for column, name in self.class_names.items():
            own = self.gts[column]
            if len(own.sequences):
                tubes = self.tubes(detections, column)
                right = self.right(self._match_tubes(tubes, own, min_iou=thr), thr)
                others = [gts for other, gts in self.gts.items() if other != column]
                types = tube_error_types(
                    right, best(tubes, own), best(tubes, *others), thr
                )
                shares[name] = error_shares(
                    types[by_score(tubes.scores)],
                    len(own.sequences),
                    TubeErrorShares,
                    self.protocol.ap,
                )
        return shares

    def _join(self, parts: list[dict]) -> Detections | Mapping[int, Tubes]:
        """Boxes to link, or by column the tubes that came linked."""
        is_ready = ['tubes' in part for part in parts]
        if not any(is_ready):
            clip_len = max((len(part['key'][2]) for part in parts), default=1)
            for part in parts:
                name, time, frames = part['key']
                if missing := clip_len - len(frames):
                    # A shorter clip goes on without boxes.
                    part['key'] = name, time, (*frames, *frames[-1:] * missing)
                    part['bboxes'] = np.pad(
                        part['bboxes'],
                        ((0, 0), (0, missing), (0, 0)),
                        constant_values=np.nan,
                    )
            return super()._join(parts)
        if not all(is_ready):
            name = parts[is_ready.index(False)]['key'][0]
            raise UserError(
                f'Some predictions are tubes, others boxes to link, as those of {name}; '
                'evaluate each on their own.'
            )
        by_key = {part['key']: part['tubes'] for part in parts}
        known = sorted(self._of_known_videos(by_key))
        self._warn_of_missing(known)
        found = {column: ([], [], []) for column in self.gts}
        for key in known:
            number = self.video_numbers[key[0]]
            for tube in by_key[key]:
                if self.score_thr is None or tube['score'] > self.score_thr:
                    pixels = whole_pixels(tube['bboxes'] * self.scales[number])
                    rows = np.column_stack([tube['frames'], pixels])
                    entry = number, rows, tube['score']
                    for field, value in zip(found[tube['label']], entry, strict=True):
                        field.append(value)
        return {column: join_tubes(*fields) for column, fields in found.items()}

    def _split(
        self, sample: dict, found: Instances
    ) -> Iterator[tuple[tuple, np.ndarray, np.ndarray]]:
        name, time, frames, found = self._clip(sample, found)
        bboxes, scores = found.bboxes[:, None], found.scores
        if found.person_scores is not None:
            number = self.video_numbers.get(name)
            end = time if number is None else max(time, self.nframes[number])
            inside = frames <= end
            frames = frames[inside]
            bboxes = boxes_where_present(
                frames,
                found.bboxes[:, inside],
                found.person_scores[:, inside],
                self.linking.presence,
            )
            if scores.ndim == 3:
                bboxes, scores = tubelets_by_action(
                    bboxes, scores[:, inside], self.linking.acting
                )
        yield (name, time, tuple(frames.tolist())), bboxes, scores

    def _numbers(self, key: tuple) -> int | np.ndarray:
        name, _, frames = key
        return self.video_numbers[name] * self._frame_limit + np.array(frames)

    def match(self, detections: Detections, column: int, *, min_iou: float) -> Matched:
        tubes = self.tubes(detections, column)
        return self._match_tubes(tubes, self.gts[column], min_iou=min_iou)

    def _match_tubes(self, tubes: Tubes, gts: Tubes, *, min_iou: float) -> Matched:
        # A group is a video.
        pairs = tube_pairs(tubes, gts, min_iou=min_iou, **self._measures())
        return Matched(tubes.sequences, tubes.scores, pairs, len(gts.sequences))

    def _measures(self) -> dict[str, float]:
        return dict(pixel=self.protocol.pixel, frame=self.protocol.frame)

    def tubes(self, detections: Detections, column: int) -> Tubes:
        """Tubes of a label; a sequence is the number of a video."""
        if not isinstance(detections, Detections):
            return detections[column]
        boxes = detections.of(column)
        if not len(boxes.scores):
            return join_tubes([], [], [])
        videos, frames = np.divmod(boxes.frames, self._frame_limit)
        scores = boxes.scores.astype(float)
        tubelets = Tubelets(videos[:, 0], frames, boxes.bboxes, scores)
        return link_tubelets(tubelets, self.linking)
