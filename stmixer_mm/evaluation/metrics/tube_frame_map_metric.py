"""Frame mAP on tube annotations."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from stmixer_mm.errors import choose
from stmixer_mm.evaluation.functional.linking import (
    FRAME_NMS,
    PUBLISHED,
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
        nms: Suppression among the boxes of a frame and class before they count:
            ``'act'`` (hard, IoU 0.3) or ``'moc'`` (soft, 0.6), as their scripts do
            for the boxes of overlapping tubelets; ``'yowo'`` and ``'retina'`` (of ``projects.published``), over all
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
        nms: str | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(ann_file, **shared)
        nms = nms or self.protocol.nms
        self.nms = choose('nms', nms, {**FRAME_NMS, None: None}, more=PUBLISHED)
        boxes = [self.gt_boxes(column) for column in self.gts]
        small = [gts.frames[~self._is_large(gts)] for gts in boxes]
        self._ignored = {*np.concatenate(small).tolist()}  # numbers of frames

    def counts(self, name: str, frame: int) -> bool:
        number = self.video_numbers.get(name, -1) * self.frame_limit + frame
        return number not in self._ignored and super().counts(name, frame)

    def class_boxes(self, detections: Detections, column: int) -> Boxes:
        boxes = detections.of(column)
        if self.nms is not None and not self.nms.over_classes:
            boxes = self._suppress(boxes)
        sizes = self.scales[boxes.frames // self.frame_limit]
        bboxes = self.protocol.detected_boxes.move(boxes.bboxes)
        return boxes._replace(bboxes=self._scaled(bboxes, sizes))

    def counted_gts(self, detections: Detections, column: int) -> Boxes:
        boxes = self.gt_boxes(column)
        counts = self._is_large(boxes)
        if self.protocol.every > 1:
            counts &= np.isin(boxes.frames, self._annotated)
        if self.protocol.skip_silent_frames:
            counts &= np.isin(boxes.frames, detections.frames[detections.owners])
        return take(boxes, counts)

    def _is_large(self, boxes: Boxes) -> np.ndarray:
        """Mask of the boxes (N,) with the area that ground truth needs."""
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

    def _suppress_over_classes(self, detections: Detections) -> Detections:
        best = np.zeros(len(detections.bboxes))
        np.maximum.at(best, detections.owners, detections.scores)
        owners = self._kept(detections.frames, detections.bboxes, best).numbers
        counts = np.isin(detections.owners, owners)
        actions = {
            name: getattr(detections, name)[counts]
            for name in ('owners', 'columns', 'scores')
        }
        return detections._replace(**actions)

    def _join(self, parts: list[dict]) -> Detections:
        parts = [part for part in parts if self.counts(*part['key'][:2])]
        detections = super()._join(parts)
        if self.nms is not None and self.nms.over_classes:
            detections = self._suppress_over_classes(detections)
        return detections

    def _split(
        self, sample: dict, instances: Instances
    ) -> Iterator[tuple[tuple, np.ndarray, np.ndarray]]:
        name, _, frames, instances = self._clip(sample, instances)
        clip = tuple(frames.tolist())
        for entry, frame in enumerate(clip):
            yield (name, frame, clip), *instances.at(entry)
