"""Pictures of keyframes while a detector is evaluated."""

import os.path as osp
import re
from collections.abc import Sequence

import numpy as np
from mmaction.engine.hooks import VisualizationHook
from mmaction.structures import ActionDataSample

from stmixer_mm.registry import HOOKS


@HOOKS.register_module()
class KeyframeVisualizationHook(VisualizationHook):
    """mmaction2's ``VisualizationHook`` with one picture per keyframe.

    The host's names files by their video, so that keyframes of one video replace
    each other. Takes the host's arguments.
    """

    def _draw_samples(
        self,
        batch_idx: int,
        data_batch: dict,
        data_samples: Sequence[ActionDataSample],
        step: int = 0,
    ) -> None:
        if not self.enable:
            return
        first = batch_idx * len(data_samples)
        for index, (clip, sample) in enumerate(
            zip(data_batch['inputs'], data_samples, strict=True), start=first
        ):
            if index % self.interval:
                continue
            # (1, 3, T, h, w) and (3, T, h, w) are both in use.
            frames = clip.reshape(clip.shape[-4:]).permute(1, 2, 3, 0).numpy()
            name = re.sub(r'[^\w.-]+', '_', str(sample.get('img_key', index)))
            out_path = self.out_dir and osp.join(self.out_dir, f'{name}_{step}')
            self._visualizer.add_datasample(
                name,
                video=frames.astype(np.uint8),
                data_sample=sample,
                step=step,
                **self.draw_args,
                out_path=out_path,
            )
