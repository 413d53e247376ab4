"""From any video or stream to persons and what they do, in the manner of the hosts."""

import logging
from collections.abc import Iterator
from pathlib import Path

from mmaction.registry import INFERENCERS
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.infer import BaseInferencer
from mmengine.logging import print_log
from torch import nn
from tqdm import tqdm

from stmixer_mm.apis.inference import Tracker, detect_video, init_detector
from stmixer_mm.apis.results import KeyframeDetections, VideoDetections
from stmixer_mm.checks.config import load_config
from stmixer_mm.datasets.streams import list_sources, name_source, open_source
from stmixer_mm.datasets.videos import OnDamage
from stmixer_mm.errors import UserError, explain

NMS_THR = 0.7


@INFERENCERS.register_module()
class ActionDetInferencer(BaseInferencer):
    """Finds the persons in videos and streams, and what they do.

    Args:
        model: Config file, the name of one in this package, or what was read from one.
        weights: Checkpoint file or URL; None leaves the parameters as for training.
        device: As in 'cpu' or 'cuda:0'; by default the one that this machine has.
        label_file: Label map (pbtxt) with the names of the actions. By default the
            names are those in the checkpoint, or of the config's test set.
        cfg_options: Overrides of the config, dotted key → value.
        show_progress: Count keyframes in the terminal.

    Raises:
        UserError: one sentence that names what is wrong.
    """

    def __init__(
        self,
        model: str | Path | Config,
        weights: str | Path | None = None,
        device: str | None = None,
        *,
        label_file: str | Path | None = None,
        cfg_options: dict | None = None,
        show_progress: bool = True,
    ) -> None:
        self._label_file, self._cfg_options = label_file, cfg_options
        super().__init__(
            model if isinstance(model, Config) else load_config(model),
            weights,
            device or get_device(),
            scope='mmaction',
            show_progress=show_progress,
        )

    def _init_model(
        self, cfg: Config, weights: str | Path | None, device: str
    ) -> nn.Module:
        return init_detector(
            cfg,
            weights,
            device=device,
            label_map=self._label_file,
            cfg_options=self._cfg_options,
        )

    def _init_pipeline(self, cfg: Config) -> Compose | None:
        """Each source has its own, see :func:`.detect_video`."""

    def _init_visualizer(self, cfg: Config) -> None:
        """Pictures are those of :mod:`.rendering`."""

    def visualize(self, *args, **kwargs) -> None:
        """Pictures are drawn while a source is read."""

    def postprocess(self, *args, **kwargs) -> None:
        """Results are objects from the beginning."""

    def stream(
        self,
        source: object,
        *,
        interval_s: float | None = None,
        start: float = 0.0,
        end: float | None = None,
        pred_score_thr: float = 0.3,
        nms_thr: float | None = NMS_THR,
        tracker: Tracker | None = None,
        batch_size: int = 1,
        fps: float | None = None,
        frame_size: tuple[int, int] | None = None,
        on_damage: OnDamage | None = None,
    ) -> Iterator[KeyframeDetections]:
        """Yield what is found in one source, each keyframe as soon as it is known.

        Args:
            source: One of :func:`.list_sources`, or what :func:`.open_source` returned.
            interval_s, start, end, nms_thr, tracker, batch_size, on_damage: As of
                :func:`.detect_video`.
            pred_score_thr: Actions with lower scores are left out.
            fps, frame_size: As of :func:`.open_source`.

        Raises:
            UserError: the source cannot be read, or broke off.
        """
        opened = open_source(
            source, fps=fps, frame_size=frame_size, on_damage=on_damage
        )
        return detect_video(
            self.model,
            opened,
            interval_s=interval_s,
            start=start,
            end=end,
            score_thr=pred_score_thr,
            nms_thr=nms_thr,
            tracker=tracker,
            batch_size=batch_size,
        )

    def detect(self, source: object, **options) -> VideoDetections:
        """All that :meth:`stream` yields of one source, with what is known of it.

        What is damaged in a file is left out and named in ``damage``; if the source
        does not open or breaks off, ``error`` says so.
        """
        found = VideoDetections(source=name_source(source))
        try:
            opened = open_source(
                source,
                fps=options.pop('fps', None),
                frame_size=options.pop('frame_size', None),
                on_damage=found.note_damage,
            )
            with tqdm(
                self.stream(opened, on_damage=found.note_damage, **options),
                desc=Path(found.source).name,
                unit='keyframe',
                disable=not self.show_progress,
            ) as keyframes:
                for one in keyframes:
                    found.keyframes.append(one)
            found.fps, (found.height, found.width) = opened.fps, opened.size
        except Exception as error:
            found.error = explain(error)
            if found.error is None:
                raise
        return found

    def __call__(
        self,
        inputs: object,
        return_datasamples: bool = False,
        batch_size: int = 1,
        **options,
    ) -> dict:
        """Detect in videos.

        Args:
            inputs: What :func:`.list_sources` takes.
            batch_size: Clips that the model sees at once.
            options: Of :meth:`stream`.

        Returns:
            ``predictions``: :class:`.VideoDetections` of each source. Of several, those
            that cannot be read have an ``error``.

        Raises:
            UserError: a source that is alone cannot be read.
        """
        sources = list_sources(inputs)
        predictions = []
        for source in sources:
            found = self.detect(source, batch_size=batch_size, **options)
            if found.error is not None:
                if len(sources) == 1 and not found.keyframes:
                    raise UserError(found.error)
                print_log(found.error, logger='current', level=logging.ERROR)
            predictions.append(found)
        return dict(predictions=predictions, visualization=None)
