"""Video mAP on tube annotations."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.functional.linking import Linking, Tubelets, parse_linking
from stmixer_mm.evaluation.functional.matching import count_ties, first_of_runs
from stmixer_mm.evaluation.functional.protocols import TUBE_PROTOCOLS
from stmixer_mm.evaluation.functional.tubelet_linking import (
    boxes_where_present,
    link_tubelets,
    tubelets_by_action,
)
from stmixer_mm.evaluation.functional.tubes import (
    Tubes,
    join_tubes,
    suppress_tubes,
    tube_pairs,
)
from stmixer_mm.evaluation.metrics.detection_metric import Matched
from stmixer_mm.evaluation.metrics.predictions import Detections, Instances
from stmixer_mm.evaluation.metrics.tube_metric import TubeMetric
from stmixer_mm.registry import METRICS


@METRICS.register_module()
class VideoMAPMetric(TubeMetric):
    """Video mAP: AP of each class over tubes, linked from boxes of frames or tubelets.

    A tube is right if it overlaps a true one by the threshold in space and time, see
    ``tube_overlaps``. Predictions are of every frame, or of frames or clips up to
    ``end_after`` apart; clips may overlap.

    Tubes that are linked already count as they are, all of them unless score_thr
    is set: samples with ``video_id`` and ``pred_tubes``, of each tube its label from 0,
    its score, and its rows (m, 5) of frame and box in pixels; those that overlap a
    better one by more than ``tube_nms_iou`` of the sample, if any, do not count.

    Values: ``overall@thr`` for each threshold, ``<label>@thr`` for the first.

    Args:
        ann_file: Ground-truth pickle, as in :class:`TubeMetric`.
        linking: Constants of the linking: the name of published ones, see
            ``LINKINGS``, or a dict with some of ``Linking``'s, where ``base`` may name
            those that the rest are taken from (``'act'``).
        iou_thrs: As in :class:`DetectionMetric`.
        shared: Further arguments of :class:`TubeMetric`.
    """

    default_prefix = 'video_mAP'
    protocols = TUBE_PROTOCOLS
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
        for sample in data_samples:
            if 'pred_tubes' in sample:
                self.results.append([dict(sample, key=(sample['video_id'],))])
            else:
                super().process(data_batch, [sample])

    def match(
        self,
        detections: Detections | Mapping[int, Tubes],
        column: int,
        *,
        min_iou: float,
    ) -> Matched:
        return self.match_tubes(self.tubes(detections, column), column, min_iou=min_iou)

    def match_tubes(self, tubes: Tubes, column: int, *, min_iou: float) -> Matched:
        """Tubes of a label, and the ground truth that they overlap by min_iou."""
        gts, rules = self.gts[column], self.protocol  # a group is a video
        options = dict(self.measures(), exceed=rules.exceed)
        pairs = tube_pairs(tubes, gts, min_iou=min_iou, **options)
        return Matched(tubes.sequences, tubes.scores, pairs, gts.sequences)

    def measures(self) -> dict[str, float]:
        """The measures of overlaps, see ``tube_overlaps``."""
        names = 'pixel', 'frame', 'least_common'
        return {name: getattr(self.protocol, name) for name in names}

    def tubes(self, detections: Detections | Mapping[int, Tubes], column: int) -> Tubes:
        """Tubes of a label, as they are measured; a sequence is the number of a video."""
        tubes = self._linked(detections, column)
        bboxes = self.protocol.detected_boxes.move(tubes.bboxes)
        sizes = self.scales[np.repeat(tubes.sequences, tubes.lengths)]
        return tubes._replace(bboxes=self._scaled(bboxes, sizes))

    def _linked(
        self, detections: Detections | Mapping[int, Tubes], column: int
    ) -> Tubes:
        if not isinstance(detections, Detections):
            return detections[column]
        boxes = detections.of(column)
        if not len(boxes.scores):
            return join_tubes([])
        videos, frames = np.divmod(boxes.frames, self.frame_limit)
        scores = boxes.scores.astype(float)
        tubelets = Tubelets(videos[:, 0], frames, boxes.bboxes, scores)
        return link_tubelets(tubelets, self.linking)

    def _join(self, parts: list[dict]) -> Detections | Mapping[int, Tubes]:
        """Boxes to link, or by column the tubes that came linked."""
        if any('pred_tubes' in part for part in parts):
            return self._join_tubes(parts)
        parts = self._in_counted_frames(parts)
        clip_len = max((len(part['key'][2]) for part in parts), default=1)
        for part in parts:
            name, time, frames = part['key']
            if missing := clip_len - len(frames):
                # A shorter clip goes on without boxes.
                part['key'] = name, time, (*frames, *frames[-1:] * missing)
                pad = (0, 0), (0, missing), (0, 0)
                part['bboxes'] = np.pad(part['bboxes'], pad, constant_values=np.nan)
        detections = super()._join(parts)
        frames = np.atleast_2d(detections.frames.T)[0][detections.owners]
        unit = 'boxes of a class in a frame'
        self._note_ties(unit, detections.scores, detections.columns, frames)
        if isinstance(self.linking, Linking):
            return detections
        return self._link_videos(detections)

    def _in_counted_frames(self, parts: list[dict]) -> list[dict]:
        """The parts of frames that count; tubelets have no box in the others."""
        counted_parts = []
        for part in parts:
            name, _, frames = part['key']
            counted = np.array([self.counts(name, frame) for frame in frames])
            if counted.all():
                counted_parts.append(part)
            elif counted.any():
                bboxes = np.where(counted[:, None], part['bboxes'], np.nan)
                counted_parts.append(dict(part, bboxes=bboxes))
        return counted_parts

    def _link_videos(self, detections: Detections) -> Mapping[int, Tubes]:
        """Tubes by column, linked video by video with the scores of all classes."""
        tubes = {column: [] for column in self.gts}
        videos, frames = np.divmod(detections.frames.ravel(), self.frame_limit)
        starts = np.flatnonzero(first_of_runs(videos))
        for start, stop in itertools.pairwise([*starts, len(videos)]):
            video = videos[start]
            actions = slice(*detections.owners.searchsorted((start, stop)))
            box, column = (
                detections.owners[actions] - start,
                detections.columns[actions],
            )
            scores = np.zeros((stop - start, self.num_classes))
            scores[box, column] = detections.scores[actions]
            bboxes = detections.bboxes[start:stop].reshape(-1, 4)
            linked = self.linking.link_video(
                self.nframes[video], frames[start:stop], bboxes, scores
            )
            for column, rows, score in linked:
                tubes[column].append((video, rows, score))
        return {column: join_tubes(entries) for column, entries in tubes.items()}

    def _join_tubes(self, parts: list[dict]) -> Mapping[int, Tubes]:
        by_key = {part['key']: part for part in parts}
        listed = {column: [] for column in self.gts}
        for key in sorted(self._of_known_videos(by_key)):
            number, part = self.video_numbers[key[0]], by_key[key]
            for label, score, rows in sorted(part['pred_tubes'], key=_rows_of):
                if self.score_thr is None or score > self.score_thr:
                    listed[label + 1].append((number, rows, score))
        tubes = {column: join_tubes(entries) for column, entries in listed.items()}
        scores = [class_tubes.scores for class_tubes in tubes.values()]
        columns = np.repeat([*tubes], [*map(len, scores)])
        self._note_ties('tubes of a class', np.concatenate(scores), columns)
        if nms_iou := parts[0].get('tube_nms_iou'):
            for column, class_tubes in tubes.items():
                tubes[column] = suppress_tubes(class_tubes, nms_iou)
        return tubes

    def _split(
        self, sample: dict, instances: Instances
    ) -> Iterator[tuple[tuple, np.ndarray, np.ndarray]]:
        name, time, frames, instances = self._clip(sample, instances)
        bboxes, scores = instances.bboxes[:, None], instances.scores
        if instances.person_scores is not None:
            if not isinstance(self.linking, Linking):
                raise UserError(
                    f'{type(self.linking).__name__} links boxes of frames, not tubelets; '
                    "use linking='act' or another one for tubelets."
                )
            # A clip that goes on beyond its video repeats the last frame.
            number = self.video_numbers.get(name)
            end = time if number is None else max(time, self.nframes[number])
            frames = np.minimum(frames, end)
            bboxes = boxes_where_present(
                frames, instances.bboxes, instances.person_scores, self.linking.presence
            )
            if scores.ndim == 3:
                bboxes, scores = tubelets_by_action(bboxes, scores, self.linking.acting)
        if not getattr(self.linking, 'by_lines', False):
            # Equal scores count by box: the order of a file's lines changes nothing.
            order = np.lexsort(np.concatenate([*bboxes.T, -scores.T])[::-1])
            bboxes, scores = bboxes[order], scores[order]
        yield (name, time, tuple(frames.tolist())), bboxes, scores

    def _note_ties(self, unit: str, scores: np.ndarray, *groups: np.ndarray) -> None:
        number = count_ties(scores, *groups)
        self.ties = f'; {number} of {len(scores)} scores tie among {unit}'

    def _numbers(self, key: tuple) -> int | np.ndarray:
        name, _, frames = key
        return self.video_numbers[name] * self.frame_limit + np.array(frames)


def _rows_of(tube: tuple[int, float, np.ndarray]) -> list:
    return np.asarray(tube[2]).tolist()
