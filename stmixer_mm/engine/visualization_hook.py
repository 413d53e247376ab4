"""Pictures of keyframes while a detector is evaluated."""

import os.path as osp
import re
from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot
from mmaction.engine.hooks import VisualizationHook
from mmaction.structures import ActionDataSample

from stmixer_mm.errors import UserError
from stmixer_mm.registry import HOOKS


def check_display() -> None:
    """Raises ``UserError`` where no window can be shown."""
    if pyplot.get_backend().lower() == 'agg':
        raise UserError(
            'There is no display to show windows on; write pictures to files.'
        )


@HOOKS.register_module()
class KeyframeVisualizationHook(VisualizationHook):
    """mmaction2's ``VisualizationHook`` with one picture per keyframe.

    The host's names files by their video, so that keyframes of one video replace
    each other.

    Args:
        enable: Whether to draw at all.
        interval: Draw every n-th sample.
        show: Show a window for ``wait_time`` seconds.
        out_dir: Folder for the pictures; without it the visualizer's back ends keep
            them.
        score_thr: Actions with lower scores are not drawn.

    Raises:
        UserError: There is no display to show windows on, or ``interval`` is below 1.
    """

    def __init__(
        self,
        *,
        enable: bool = False,
        interval: int = 1,
        show: bool = False,
        wait_time: float = 2.0,
        out_dir: str | None = None,
        score_thr: float = 0.3,
    ) -> None:
        if interval < 1:
            raise UserError(f'interval={interval} draws nothing; give 1 or more.')
        if enable and show:
            check_display()
        super().__init__(
            enable=enable,
            interval=interval,
            show=show,
            out_dir=out_dir,
            wait_time=wait_time,
            score_thr=score_thr,
        )

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
