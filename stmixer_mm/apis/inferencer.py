"""From any video or stream to persons and what they do, like the hosts' inferencers."""

import json
import logging
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Annotated

from mmaction.registry import INFERENCERS
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.infer import BaseInferencer
from mmengine.logging import print_log
from torch import nn
from tqdm import tqdm

from stmixer_mm.apis.inference import detect_video, init_detector
from stmixer_mm.apis.rendering import render_video
from stmixer_mm.apis.results import plot_video
from stmixer_mm.apis.tracking import DEFAULT_TRACKER, TRACKERS, Tracker, build_tracker
from stmixer_mm.checks.config import load_config
from stmixer_mm.checks.options import (
    CfgOptions,
    Count,
    NotNegative,
    OptionsOf,
    Positive,
    Score,
)
from stmixer_mm.datasets.frames import without_suffix
from stmixer_mm.datasets.streams import (
    FrameStream,
    list_sources,
    name_source,
    open_source,
)
from stmixer_mm.datasets.videos import DamagedVideo, OnDamage, join_stretches
from stmixer_mm.engine.speed import speed_up
from stmixer_mm.engine.visualization_hook import check_display
from stmixer_mm.errors import UserError, explain
from stmixer_mm.files import check_writable_dir, write_json
from stmixer_mm.structures import Keyframe, VideoDetections, list_tubes
from stmixer_mm.visualization.draw import show_pictures

NMS_THR = 0.7


@INFERENCERS.register_module()
class ActionDetInferencer(BaseInferencer):
    """Finds the persons in videos and streams, and what they do.

    Args:
        model: Config file, the name of one in this package, or what was read from one.
        weights: Checkpoint file or URL; None leaves the parameters as for training.
        device: Such as 'cpu' or 'cuda:0'; by default the one that this machine has.
        label_file: Label map (pbtxt) with the names of the actions; by default those of
            the checkpoint or of the config's test set.
        cfg_options: Overrides of the config, dotted key → value.
        fast: Fold batch norms, and use bfloat16 where the device multiplies it; the
            detections are identical up to rounding.
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
        label_file: Annotated[str | Path | None, dict(flag='--label-map')] = None,
        cfg_options: CfgOptions = None,
        fast: bool = False,
        show_progress: bool = True,
    ) -> None:
        self._label_file, self._cfg_options = label_file, cfg_options
        self._is_fast = fast
        if weights is None:
            print_log(
                'without weights detections mean nothing', 'current', logging.WARN
            )
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
        model = init_detector(
            cfg,
            weights,
            device=device,
            label_map=self._label_file,
            cfg_options=self._cfg_options,
        )
        return speed_up(model) if self._is_fast else model

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
        interval_s: Positive | None = None,
        start: NotNegative = 0.0,
        end: Positive | None = None,
        pred_score_thr: Annotated[Score, dict(flag='--score-thr')] = 0.3,
        nms_thr: Score | None = NMS_THR,
        tracker: Annotated[
            str | Mapping | Tracker | None, dict(choices=[*TRACKERS, 'none'])
        ] = DEFAULT_TRACKER,
        batch_size: Count = 1,
        fps: float | None = None,
        frame_size: tuple[int, int] | None = None,
        on_damage: OnDamage | None = None,
    ) -> Iterator[Keyframe]:
        """Yield what is found in one source, each keyframe as soon as it is known.

        Args:
            source: One of :func:`.list_sources`, or what :func:`.open_source` returned.
            interval_s: Seconds between keyframes, or with tubelets between the middles
                of clips; by default 1, with tubelets half a clip.
            start: Start of the part to detect in, in seconds.
            end: End of it.
            pred_score_thr: Leave out actions with lower scores.
            nms_thr: Of persons whose boxes have a larger IoU, keep the highest-scoring
                one; 1 keeps all.
            tracker: Tracker of persons, see :func:`.build_tracker`; none gives no ids.
                Tubelets and track queries need none.
            batch_size: Number of clips per forward pass.
            fps, frame_size: See :func:`.open_source`.
            on_damage: See :func:`.detect_video`.

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
            tracker=None if tracker in (None, 'none') else build_tracker(tracker),
            batch_size=batch_size,
            on_damage=on_damage,
        )

    def detect(
        self,
        source: object,
        *,
        vis_file: str | Path | None = None,
        strict: bool = False,
        **options,
    ) -> VideoDetections:
        """All that :meth:`stream` yields for one source, with what is known about it.

        What is damaged in a file is left out and named in ``damage``; if the source
        does not open or breaks off, ``error`` says so.

        Args:
            source: See :meth:`stream`.
            vis_file: Video to write, with what was found drawn into it.
            strict: Raise an error instead.
            options: Arguments of :meth:`stream`.
        """
        found = VideoDetections(source=name_source(source), classes=self.model.classes)
        opened = None

        def note_damage(damage: DamagedVideo) -> None:
            stretches = [*(found.damage or ()), damage.stretch]
            found.damage = join_stretches(stretches)

        try:
            opened = open_source(
                source,
                fps=options.pop('fps', None),
                frame_size=options.pop('frame_size', None),
                on_damage=note_damage,
            )
            drawn = None
            if vis_file is not None:
                is_stream = isinstance(opened, FrameStream)
                drawn = opened.branch() if is_stream else opened.path
            keyframes = self.stream(opened, on_damage=note_damage, **options)
            keyframes = self._record(found, keyframes, is_counted=vis_file is None)
            if drawn is not None:
                render_video(
                    drawn,
                    keyframes,
                    vis_file,
                    start=options.get('start', 0.0),
                    end=options.get('end'),
                    show_progress=self.show_progress,
                    on_damage=note_damage,
                )
            deque(keyframes, maxlen=0)  # those that no frame needed
        except Exception as error:
            found.error = explain(error)
            if strict or found.error is None:
                raise
        has_tracker = options.get('tracker', DEFAULT_TRACKER) is not None
        if has_tracker or any(one.ids for one in found.keyframes):
            found.tubes = list_tubes(found.keyframes)
        with suppress(UserError):  # no picture can be decoded
            if opened is not None and opened.size is not None:
                found.fps, (found.height, found.width) = opened.fps, opened.size
                found.total_frames = len(opened)
        return found

    def _record(
        self,
        found: VideoDetections,
        keyframes: Iterable[Keyframe],
        *,
        is_counted: bool,
    ) -> Iterator[Keyframe]:
        with tqdm(
            keyframes,
            desc=Path(found.source).name,
            unit='keyframe',
            disable=not (self.show_progress and is_counted),
        ) as counted:
            for one in counted:
                found.keyframes.append(one)
                yield one

    def __call__(
        self,
        inputs: object,
        batch_size: int = 1,
        *,
        out_dir: str | Path = '',
        no_save_vis: bool = False,
        no_save_pred: bool = False,
        pred_out_file: str | Path = '',
        print_result: bool = False,
        show: bool = False,
        **options,
    ) -> dict:
        """Detect in videos.

        Args:
            inputs: What :func:`.list_sources` takes.
            batch_size: Clips that the model sees at once.
            out_dir: Folder for ``vis/NAME.mp4`` with what was found drawn into it, and
                ``preds/NAME.json``.
            no_save_vis, no_save_pred: Leave these out.
            pred_out_file: JSON file for all predictions.
            print_result: Print them as JSON.
            show: Show each keyframe of a video file in a window.
            options: Arguments of :meth:`stream`.

        Returns:
            ``predictions``: :class:`.VideoDetections` of each source; if several, those
            that cannot be read have an ``error``. ``visualization``: paths of the
            videos written, None where there is none.

        Raises:
            UserError: the only source cannot be read.
        """
        if show:
            check_display()
        sources = list_sources(inputs)
        folders = dict(vis='.mp4', preds='.json')
        if no_save_vis or not out_dir:
            del folders['vis']
        if no_save_pred or not out_dir:
            del folders['preds']
        for folder in folders:
            check_writable_dir(Path(out_dir, folder), purpose='out_dir')
        predictions, videos = [], []
        for source, name in zip(sources, _file_names(sources), strict=True):
            files = {
                folder: Path(out_dir, folder, name + suffix)
                for folder, suffix in folders.items()
            }
            found = self.detect(
                source, vis_file=files.get('vis'), batch_size=batch_size, **options
            )
            if found.error is not None:
                if len(sources) == 1 and not found.keyframes:
                    raise UserError(found.error)
                print_log(found.error, logger='current', level=logging.WARNING)
            if 'preds' in files:
                found.save(files['preds'])
            if show and os.path.isfile(found.source):
                numbers = range(len(found.keyframes))
                show_pictures(plot_video(found, one) for one in numbers)
            predictions.append(found)
            is_drawn = 'vis' in files and found.error is None
            videos.append(str(files['vis']) if is_drawn else None)
        content = [found.to_dict() for found in predictions]
        if print_result:
            print(json.dumps(content))
        if pred_out_file:
            write_json(pred_out_file, content)
        return dict(predictions=predictions, visualization=videos)


def _file_names(sources: Iterable) -> list[str]:
    """A name of its own for the results of each source."""
    names: list[str] = []
    for source in sources:
        path = re.split('[?#]', name_source(source))[0].rstrip('/')
        stem = re.sub(r'[^\w.-]+', '_', without_suffix(path.rpartition('/')[2]))
        further = (f'{stem}_{number}' for number in count(1))
        names.append(next(name for name in chain([stem], further) if name not in names))
    return names


# Options of the command lines.
ModelOptions = Annotated[
    dict, OptionsOf(ActionDetInferencer, without=('cfg_options', 'show_progress'))
]
StreamOptions = Annotated[
    dict,
    OptionsOf(ActionDetInferencer.stream, without=('fps', 'frame_size', 'on_damage')),
]
