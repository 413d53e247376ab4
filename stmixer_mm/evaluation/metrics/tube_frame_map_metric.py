"""Frame mAP on tube annotations."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.errors import choose
from stmixer_mm.evaluation.functional.linking import (
    FRAME_NMS,
    Tubelets,
    suppress_tubelets,
)
from stmixer_mm.evaluation.functional.matching import Boxes
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

    def _join(self, parts: list[dict]) -> Detections:
        if self.frames == 'annotated':
            frames = self.true_keyframes()
            parts = [one for one in parts if keyframe_key(*one['key'][:2]) in frames]
        return super()._join(parts)

    def _split(
        self, sample: dict, found: Instances
    ) -> Iterator[tuple[tuple, np.ndarray, np.ndarray]]:
        name, _, frames, found = self._clip(sample, found)
        clip = tuple(frames.tolist())
        for entry, frame in enumerate(clip):
            yield (name, frame, clip), *found.at(entry)
