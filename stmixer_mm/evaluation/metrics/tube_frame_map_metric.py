"""Frame mAP on tube annotations."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from stmixer_mm.errors import choose
from stmixer_mm.evaluation.functional.linking import (
    FRAME_NMS,
    NumberedBoxes,
    suppress_tubelets,
)
from stmixer_mm.evaluation.functional.matching import Boxes, take
from stmixer_mm.evaluation.functional.protocols import FRAME_PROTOCOLS
from stmixer_mm.evaluation.metrics.predictions import Detections, Instances
from stmixer_mm.evaluation.metrics.tube_metric import TubeMetric
from stmixer_mm.registry import METRICS


@METRICS.register_module()
class TubeFrameMAPMetric(TubeMetric):
    """Frame mAP against tubes: AP of each class over all frames of the test videos.

    Every box of every true tube counts. Frames without a prediction count as missed.
    Of tubelets, each box counts in its frame, with the scores of the tubelet times the
    person score of the frame.

    Values: ``overall@thr`` for each threshold, ``<label>@thr`` for the first.

    Args:
        ann_file: Ground-truth pickle, as in :class:`TubeMetric`.
        frames: Those in which detections count: ``'all'`` frames of the test videos
            (ACT, MOC, MultiSports), or the ``'annotated'`` ones, in which a tube of any
            label has a box (YOWO); None: by protocol.
        nms: Suppression among the boxes of a frame and class before they count:
            ``'act'`` (hard, IoU 0.3) or ``'moc'`` (soft, 0.6), as their scripts do
            for the boxes of overlapping tubelets; ``'yowo'`` and ``'retina'``, over all
            classes; see ``FRAME_NMS``. None: by protocol, most of which take detections
            as they are.
        shared: Further arguments of :class:`TubeMetric`.
    """

    default_prefix = 'frame_mAP'
    protocols = FRAME_PROTOCOLS
    unit = 'boxes'

    def __init__(
        self,
        ann_file: str,
        *,
        frames: str | None = None,
        nms: str | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(ann_file, **shared)
        choose('frames', frames, dict.fromkeys(('all', 'annotated', None)))
        rules = self.protocol
        self.protocol = rules = rules._replace(frames=frames or rules.frames)
        self.nms = choose('nms', nms or rules.nms, {**FRAME_NMS, None: None})
        # Numbers of frames: those that count alone, and those that do not.
        columns = self.class_names if rules.frames == 'evaluated' else self.gts
        boxes = [self.gt_boxes(column) for column in columns]
        annotated = np.unique(np.concatenate([one.frames for one in boxes]))
        videos = annotated // self.frame_limit
        ranks = np.arange(len(videos)) - np.searchsorted(videos, videos)
        self._annotated = annotated[ranks % rules.every == 0]
        small = [one.frames[~self._is_large(one)] for one in boxes]
        self._ignored = np.unique(np.concatenate(small))

    def found(self, detections: Detections, column: int) -> Boxes:
        boxes = detections.of(column)
        if self.nms is not None and not self.nms.over_classes:
            boxes = self._suppress(boxes)
        return boxes._replace(bboxes=self.protocol.found_boxes.move(boxes.bboxes))

    def counted_gts(self, detections: Detections, column: int) -> Boxes:
        boxes = self.gt_boxes(column)
        counts = self._is_large(boxes)
        if self.protocol.every > 1:
            counts &= np.isin(boxes.frames, self._annotated)
        if self.protocol.skip_silent_frames:
            counts &= np.isin(boxes.frames, detections.frames[detections.owners])
        return take(boxes, counts)

    def _is_large(self, boxes: Boxes) -> np.ndarray:
        """Which boxes (N,) have the area that ground truth needs."""
        low, high = np.hsplit(boxes.bboxes, 2)
        area = np.maximum(high - low, 0).prod(axis=1)
        return area >= self.protocol.least_area

    def _suppress(self, boxes: Boxes) -> Boxes:
        _, frames, bboxes, scores, _ = self._kept(*boxes)
        return Boxes(frames[:, 0], bboxes[:, 0], scores)

    def _kept(
        self, frames: np.ndarray, bboxes: np.ndarray, scores: np.ndarray
    ) -> NumberedBoxes:
        """Boxes that suppression in each frame leaves, with their numbers."""
        numbers = np.arange(len(frames))
        apart = NumberedBoxes(
            np.zeros_like(numbers),
            frames[:, None],
            bboxes[:, None],
            scores.astype(float),
            numbers,
        )
        return suppress_tubelets(apart, self.nms)

    def _suppress_over_classes(self, found: Detections) -> Detections:
        best = np.zeros(len(found.bboxes))
        np.maximum.at(best, found.owners, found.scores)
        kept = self._kept(found.frames, found.bboxes, best).numbers
        counts = np.isin(found.owners, kept)
        actions = {
            name: getattr(found, name)[counts]
            for name in ('owners', 'columns', 'scores')
        }
        return found._replace(**actions)

    def _join(self, parts: list[dict]) -> Detections:
        ignored = {*self._ignored.tolist()}
        counted = None if self.protocol.frames == 'all' else {*self._annotated.tolist()}

        def counts(name: str, frame: int, _: tuple) -> bool:
            if name not in self.video_numbers:
                return True  # named as unknown
            number = self._numbers((name, frame))
            return number not in ignored and (counted is None or number in counted)

        found = super()._join([part for part in parts if counts(*part['key'])])
        if self.nms is not None and self.nms.over_classes:
            found = self._suppress_over_classes(found)
        return found

    def _split(
        self, sample: dict, found: Instances
    ) -> Iterator[tuple[tuple, np.ndarray, np.ndarray]]:
        name, _, frames, found = self._clip(sample, found)
        clip = tuple(frames.tolist())
        for entry, frame in enumerate(clip):
            yield (name, frame, clip), *found.at(entry)
