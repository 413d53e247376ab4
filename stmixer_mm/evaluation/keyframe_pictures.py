"""Keyframes of a dataset with true and predicted boxes, side by side."""

from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.structures import InstanceData

from stmixer_mm.datasets.ava_csv import keyframe_key
from stmixer_mm.registry import DATASETS
from stmixer_mm.visualization import STADVisualizer

from .results import ConfiguredMetric, CsvDetections, Dump, sample_key

_SHORT_SIDE = 360  # pixels from which on labels are legible


class KeyframePictures:
    """Draws what the network sees of a keyframe, with true and predicted boxes.

    Args:
        cfg: A config; frames and true boxes come from its ``test_dataloader``.
        metric: Names the keyframes (``frame_key``).
        score_thr: Lower scores are not drawn.

    Raises:
        FileNotFoundError, ValueError: the dataset cannot be read.
    """

    def __init__(
        self, cfg: Config, metric: BaseMetric, *, score_thr: float = 0.3
    ) -> None:
        loader = cfg.get('test_dataloader') or {}
        if 'dataset' not in loader:
            raise ValueError(
                f'{cfg.filename} has no test_dataloader.dataset to draw keyframes '
                'from; add it or use --no-keyframes.'
            )
        self._dataset = DATASETS.build(loader['dataset'])
        self._dataset.full_init()
        entry = getattr(metric, 'frame_key', 'timestamp')
        self._index = {}
        for index in range(len(self._dataset)):
            info = self._dataset.get_data_info(index)
            if info.get(entry) is not None:
                self._index[keyframe_key(info['video_id'], info[entry])] = index
        self._score_thr = score_thr
        self._visualizer = STADVisualizer()

    def samples(
        self,
        configured: ConfiguredMetric,
        results: Dump | CsvDetections,
        keys: Collection[str],
    ) -> dict[str, dict]:
        """Predictions of some keyframes by key, those that have any."""
        wanted, found = set(keys), {}
        for place, sample in results.samples(configured):
            key = sample_key(configured.metric, sample, place)
            if key in wanted:
                found[key] = sample['pred_instances']
        return found

    def draw(
        self,
        key: str,
        instances: dict | None,
        classes: Sequence[str] | None,
        path: str | Path,
    ) -> bool:
        """Draw true boxes left, predicted ones right; False if the dataset lacks it."""
        if key not in self._index:
            return False
        packed = self._dataset[self._index[key]]
        clip = packed['inputs']
        frames = clip.reshape(clip.shape[-4:])
        # (1, 3, T, h, w) and (3, T, h, w) are both in use.
        frame = frames[:, frames.shape[1] // 2].permute(1, 2, 0).numpy()
        height, width = frame.shape[:2]
        scale = max(1, _SHORT_SIDE / min(height, width))
        size = round(width * scale), round(height * scale)
        frame = cv2.resize(frame.astype(np.uint8), size, interpolation=cv2.INTER_CUBIC)

        truth = packed['data_samples'].gt_instances
        sample = ActionDataSample()
        sample.gt_instances = InstanceData(
            bboxes=truth.bboxes * scale, labels=truth.labels
        )
        if instances is None:
            instances = dict(
                bboxes=torch.zeros(0, 4), scores=torch.zeros(0, truth.labels.shape[1])
            )
        scores = torch.as_tensor(instances['scores'])
        shown = (scores[:, 1:] >= self._score_thr).any(dim=1)
        sample.pred_instances = InstanceData(
            bboxes=torch.as_tensor(instances['bboxes'])[shown], scores=scores[shown]
        )
        names = self._dataset.metainfo.get('classes') or classes
        self._visualizer.dataset_meta = dict(classes=names)
        self._visualizer.add_datasample(
            key,
            video=frame[None],
            data_sample=sample,
            score_thr=self._score_thr,
            out_path=str(path),
        )
        return True
