"""Keyframes with right and wrong detections: rated, listed from the worst on, drawn."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.config import Config

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.errors import UserError, blame
from stmixer_mm.evaluation.functional.tables import Row
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.metrics.predictions import Detections
from stmixer_mm.evaluation.metrics.tube_metric import TubeMetric
from stmixer_mm.projects.diagnosis.error_types import first_threshold
from stmixer_mm.registry import DATASETS
from stmixer_mm.visualization.draw import (
    draw_detections,
    enlarge,
    side_by_side,
    write_picture,
)
from stmixer_mm.visualization.visualizer import draw_ground_truth, keyframe_entry


class RatedBox(NamedTuple):
    """A detection of one class."""

    bbox_norm: tuple[float, ...]
    class_name: str
    score: float
    right: bool


@dataclass
class RatedKeyframe:
    """The detections of a keyframe that score high enough."""

    key: str  # as of ``keyframe_key``
    num_gts: int = 0  # of all classes
    boxes: list[RatedBox] = field(default_factory=list)

    @property
    def num_right(self) -> int:
        return sum(box.right for box in self.boxes)

    @property
    def cost(self) -> float:
        """1 for each ground truth, less the score of the detection that is right about
        it; and the score of each wrong detection."""
        signed = (-box.score if box.right else box.score for box in self.boxes)
        return float(self.num_gts + sum(signed))


def rate_keyframes(
    metric: DetectionMetric, detections: Detections, *, score_thr: float
) -> list[RatedKeyframe]:
    """Keyframes of a metric that matches boxes, from the highest cost down."""
    thr, keyframes = first_threshold(metric), {}

    def keyframe(frame: int) -> RatedKeyframe:
        key = detections.keyframe_key(frame)
        return keyframes.setdefault(frame, RatedKeyframe(key))

    for column, name in metric.class_names.items():
        for frame in metric.gt_boxes(column).frames.tolist():
            keyframe(frame).num_gts += 1
        boxes = metric.class_boxes(detections, column)
        right = metric.right(metric.match(detections, column, min_iou=thr), thr)
        for row in np.flatnonzero(boxes.scores >= score_thr):
            frame, bbox = int(boxes.frames[row]), boxes.bboxes[row]
            if isinstance(metric, TubeMetric):  # in pixels
                bbox = bbox / metric.scales[frame // metric.frame_limit]
            score, is_right = float(boxes.scores[row]), bool(right[row])
            box = RatedBox(tuple(bbox.tolist()), name, score, is_right)
            keyframe(frame).boxes.append(box)
    return sorted(keyframes.values(), key=lambda rated: (-rated.cost, rated.key))


def keyframe_rows(keyframes: Sequence[RatedKeyframe]) -> list[Row]:
    """A table: the names, a row for each keyframe."""
    rows = [['video', 'timestamp', 'cost', 'gts', 'found', 'wrong']]
    for keyframe in keyframes:
        video, timestamp = keyframe.key.rsplit(',', 1)
        num_wrong = len(keyframe.boxes) - keyframe.num_right
        counts = keyframe.cost, keyframe.num_gts, keyframe.num_right, num_wrong
        rows.append([video, f'{float(timestamp):g}', *counts])
    return rows


RIGHT, WRONG = (139, 193, 162), (219, 144, 129)  # light enough for black text


def draw_keyframes(
    cfg: Config, keyframes: Sequence[RatedKeyframe], folder: Path
) -> None:
    """Draw what the network sees of keyframes, their names numbered from the worst on.

    Frames and true boxes come from the ``test_dataloader`` of the config. Its videos are
    needed for nothing else: without them a note says that nothing is drawn.
    """
    try:
        with blame('test_dataloader.dataset cannot be read', 'use --no-keyframes'):
            dataset = DATASETS.build(cfg.test_dataloader.dataset)
            dataset.full_init()
            classes = dataset.metainfo.get('classes')
            infos = map(dataset.get_data_info, range(len(dataset)))
            keys = [keyframe_key(info['video_id'], info['timestamp']) for info in infos]
            for rank, keyframe in enumerate(keyframes, start=1):
                if keyframe.key not in keys:
                    print(f'note: {keyframe.key} is not tested.', file=sys.stderr)
                    continue
                packed = dataset[keys.index(keyframe.key)]
                picture = draw_keyframe(packed, keyframe, classes)
                name = re.sub(r'[^\w.-]+', '_', keyframe.key)
                write_picture(folder / f'keyframe_{rank:02d}_{name}.jpg', picture)
    except UserError as error:
        print(f'note: not all keyframes are drawn: {error}', file=sys.stderr)


def draw_keyframe(
    packed: dict, keyframe: RatedKeyframe, classes: Sequence[str] | None
) -> np.ndarray:
    """True boxes left, predicted ones right; colours tell right from wrong.

    Args:
        packed: Sample of a dataset.
        keyframe: Its predictions.
        classes: Names of the true actions.
    """
    clip, sample = packed['inputs'], packed['data_samples']
    frames = clip.reshape(clip.shape[-4:])  # from (1, 3, T, h, w) or (3, T, h, w)
    entry = keyframe_entry(sample, frames.shape[1])
    frame = frames[:, entry].permute(1, 2, 0).numpy()
    frame, factor = enlarge(frame.astype(np.uint8))
    gts, num_wrong = sample.gt_instances, len(keyframe.boxes) - keyframe.num_right
    true = draw_ground_truth(frame, gts, classes, scale=factor, entry=entry)
    counts = (f'{keyframe.num_right} right', RIGHT), (f'{num_wrong} wrong', WRONG)
    headings = [('ground truth', None)], [('predicted', None), *counts]
    return side_by_side([true, _draw_detected(frame, keyframe)], headings)


def _draw_detected(frame: np.ndarray, keyframe: RatedKeyframe) -> np.ndarray:
    """Actions by box; the right ones first, then by score."""
    persons: dict[tuple, list] = {}
    for box in sorted(keyframe.boxes, key=lambda box: (not box.right, -box.score)):
        persons.setdefault(box.bbox_norm, []).append(box)
    bboxes = np.reshape([*persons], (-1, 4)) * (frame.shape[1::-1] * 2)
    actions, colors = [], []
    for boxes in persons.values():
        actions.append([(box.class_name, box.score) for box in boxes])
        colors.append([RIGHT if box.right else WRONG for box in boxes])
    return draw_detections(frame, bboxes, actions, colors=colors)
