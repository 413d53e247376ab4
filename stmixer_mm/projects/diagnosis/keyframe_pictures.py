"""Keyframes of a dataset with ground truth and predictions, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config

from stmixer_mm.datasets.annotations.ava_csv import keyframe_key
from stmixer_mm.errors import blame
from stmixer_mm.projects.diagnosis.figures import RIGHT, WRONG
from stmixer_mm.projects.diagnosis.judging import JudgedBoxes
from stmixer_mm.registry import DATASETS
from stmixer_mm.visualization.draw import (
    draw_detections,
    enlarge,
    side_by_side,
    write_picture,
)
from stmixer_mm.visualization.visualizer import draw_ground_truth, keyframe_entry


class KeyframePictures:
    """Draws what the network sees of a keyframe, with true and predicted boxes.

    Args:
        cfg: A config; frames and true boxes come from its ``test_dataloader``.
        judged: The predictions.
        score_thr: Lower scores are not drawn.
    """

    def __init__(
        self,
        cfg: Config,
        judged: JudgedBoxes,
        *,
        score_thr: float = 0.3,
    ) -> None:
        with blame('test_dataloader.dataset cannot be built', 'use --no-keyframes'):
            self._dataset = DATASETS.build(cfg.test_dataloader.dataset)
            self._dataset.full_init()
            infos = map(self._dataset.get_data_info, range(len(self._dataset)))
            self._index = {
                keyframe_key(info['video_id'], info['timestamp']): index
                for index, info in enumerate(infos)
            }
        self._judged = judged
        self._score_thr = score_thr
        classes = self._dataset.metainfo.get('classes') or ()
        names = {**judged.class_names, **dict(enumerate(classes, start=1))}
        columns = range(1, max(names) + 1)
        self._classes = [names.get(column, f'action {column}') for column in columns]

    def draw(self, key: str, path: str | Path) -> bool:
        """Draw true boxes left, predicted ones right; False if ``key`` is unknown.

        Colours and heading tell right predictions from wrong ones, as judged.
        """
        if key not in self._index:
            return False
        with blame(f'{key} cannot be drawn', 'use --no-keyframes'):
            packed = self._dataset[self._index[key]]
            clip = packed['inputs']
            frames = clip.reshape(clip.shape[-4:])
            # (1, 3, T, h, w) and (3, T, h, w) are both in use.
            entry = keyframe_entry(packed['data_samples'], frames.shape[1])
            frame = frames[:, entry].permute(1, 2, 0).numpy()
            frame, factor = enlarge(frame.astype(np.uint8))
            gts = packed['data_samples'].gt_instances
        true = draw_ground_truth(frame, gts, self._classes, scale=factor, entry=entry)
        found = self._found(self._judged.keyframes.index(key))
        right = [self._judged.right[row] for rows in found.values() for row in rows]
        counts = [
            (f'{right.count(True)} right', _COLORS[True]),
            (f'{right.count(False)} wrong', _COLORS[False]),
        ]
        views = [true, self._draw_found(frame, found)]
        headings = [[('ground truth', None)], [('predicted', None), *counts]]
        write_picture(path, side_by_side(views, headings))
        return True

    def _found(self, frame: int) -> dict[tuple, list[int]]:
        """Detections that are drawn, by box; the right ones first, then by score."""
        judged = self._judged
        drawn = (judged.frames == frame) & (judged.scores >= self._score_thr)
        rows = np.flatnonzero(drawn)
        found = {}
        for row in rows[np.lexsort((-judged.scores[rows], ~judged.right[rows]))]:
            found.setdefault(tuple(judged.bboxes_norm[row]), []).append(row)
        return found

    def _draw_found(
        self, frame: np.ndarray, found: Mapping[tuple, Sequence[int]]
    ) -> np.ndarray:
        judged, (height, width) = self._judged, frame.shape[:2]
        bboxes = np.reshape(list(found), (-1, 4)) * (width, height, width, height)
        actions, colors = [], []
        for rows in found.values():
            names = [self._classes[column - 1] for column in judged.columns[rows]]
            actions.append(list(zip(names, judged.scores[rows], strict=True)))
            colors.append([_COLORS[is_right] for is_right in judged.right[rows]])
        return draw_detections(frame, bboxes, actions, colors=colors)


def _lighten(color: str) -> tuple[int, ...]:
    """RGB of a '#rrggbb', light enough for black text."""
    rgb = bytes.fromhex(color.removeprefix('#'))
    return tuple(round(0.65 * value + 0.35 * 255) for value in rgb)


_COLORS = {True: _lighten(RIGHT), False: _lighten(WRONG)}
