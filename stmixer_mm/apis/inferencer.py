"""Detection of persons and their actions in any video or stream."""

import json
import logging
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from inspect import signature
from itertools import chain, count
from pathlib import Path
from typing import Annotated

from mmaction.registry import INFERENCERS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from tqdm import tqdm

from stmixer_mm.apis.config import config_files
from stmixer_mm.apis.inference import detect_video, init_detector
from stmixer_mm.apis.model_zoo import resolve_model
from stmixer_mm.apis.predict import Predictor, predict
from stmixer_mm.apis.rendering import render_video
from stmixer_mm.apis.tracking import (
    DEFAULT_TRACKER,
    TRACKERS,
    Tracker,
    build_tracker,
    list_tubes,
)
from stmixer_mm.command_line import (
    CfgOptions,
    Count,
    NotNegative,
    OptionsOf,
    Positive,
    Score,
)
from stmixer_mm.datasets.frames import without_suffix
from stmixer_mm.datasets.pipelines import dataset_configs
from stmixer_mm.datasets.streams import (
    FrameStream,
    input_files,
    list_sources,
    name_source,
    open_source,
)
from stmixer_mm.datasets.videos import (
    DamagedVideo,
    OnDamage,
    Video,
    join_stretches,
)
from stmixer_mm.engine.speed import speed_up
from stmixer_mm.errors import UserError, explain
from stmixer_mm.files import (
    check_no_input,
    check_writable_dir,
    check_writable_file,
    sha256_of,
    write_json,
)
from stmixer_mm.registry import Reuse
from stmixer_mm.structures import Keyframe, VideoDetections

NMS_THR = 0.7
# Options that change nothing but rounding, or are none.
_UNCOUNTED = {'source', 'batch_size', 'reuse', 'on_damage'}
MAX_REASONS = 10  # why parts of a video were left out


@INFERENCERS.register_module()
class ActionDetInferencer:
    """Finds the persons in videos and streams, and their actions.

    Args:
        model: Config file, the name of one in this package, or what was read from one;
            without ``weights`` also a checkpoint with its config in it, or a model with
            weights: of this package, stmixer-n_jhmdb (default), or of the release, from
            where they are fetched, such as stmixer_slowonly-r50_ava22.
        weights: Checkpoint file or URL; None leaves the parameters as for training.
        device: Such as cpu or cuda:0; by default the accelerator, if there is one.
        label_file: Label map (pbtxt) with the names of the actions. By default the
            names come from the checkpoint or the config's test set.
        cfg_options: Overrides of the config, dotted key → value.
        fast: Fold batch norms, and use bfloat16 where the device supports it; the
            detections are identical up to rounding.
        show_progress: Count keyframes in the terminal.

    Attributes:
        input_files: Files of the model, and those that its config names.

    Raises:
        UserError: one sentence that names what is wrong.
    """

    def __init__(
        self,
        model: str | Path | Config | None = None,
        weights: str | Path | None = None,
        device: str | None = None,
        *,
        label_file: Annotated[str | None, dict(flag='--label-map')] = None,
        cfg_options: CfgOptions = None,
        fast: bool = False,
        show_progress: bool = True,
    ) -> None:
        model, weights = resolve_model(model, weights)
        files = [file for file in (model, weights, label_file) if file]
        self.model = init_detector(
            model,
            weights,
            device=device or get_device(),
            label_map=label_file,
            cfg_options=cfg_options,
        )
        files += config_files(self.model.cfg)
        self.input_files = [file for file in files if isinstance(file, str | Path)]
        self._weights = weights
        if weights is None:
            print_log(
                'without weights detections mean nothing', 'current', logging.WARN
            )
        if note := (self.model.cfg.get('use') or {}).get('note'):
            print_log(f'model: {note}', 'current')
        if fast:
            speed_up(self.model)
        self.show_progress = show_progress

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
            str | Mapping | Tracker | None, dict(choices=(*TRACKERS, 'none'))
        ] = DEFAULT_TRACKER,
        batch_size: Count = 1,
        reuse: Reuse = 'auto',
        fps: Positive | None = None,
        on_damage: OnDamage | None = None,
        predictor: Predictor = predict,
    ) -> Iterator[Keyframe]:
        """Yield the keyframes of one source, each as soon as it is known.

        Args:
            source: One of :func:`.list_sources`, or what :func:`.open_source` returned.
            interval_s: Seconds between keyframes (default: 1), with tubelets between
                the middles of clips (default: half a clip).
            start, end: Part of the source in seconds.
            pred_score_thr: Leave out actions with lower scores.
            nms_thr: Of persons whose boxes have a larger IoU, keep only the
                highest-scoring; 1 keeps all.
            tracker: Follows persons from keyframe to keyframe, see
                :func:`.build_tracker`; with none they have no ids. Tubelets and track
                queries need no tracker.
            batch_size: Clips that the model sees at once.
            reuse: Overlapping clips share what is computed for each frame: auto, where
                the model can; always, or it is an error; never.
            fps: See :func:`.open_source`.
            on_damage: See :func:`.detect_video`.
            predictor: See :func:`.detect_clips`.

        Raises:
            UserError: the source cannot be read, or broke off.
        """
        opened = open_source(source, fps=fps, on_damage=on_damage)
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
            reuse=reuse,
            on_damage=on_damage,
            predictor=predictor,
        )

    def digest(self, **options) -> str:
        """SHA-256 of what detections depend on: the model, and options of :meth:`stream`.

        Options that change nothing but rounding do not count.
        """
        parameters = signature(self.stream).parameters.values()
        defaults = {parameter.name: parameter.default for parameter in parameters}
        settings = defaults | options
        settings = {name: settings[name] for name in sorted({*settings} - _UNCOUNTED)}
        cfg, weights = self.model.cfg, [str(self._weights)]
        if weights[0].endswith('.xml'):  # OpenVINO's; its values are beside it
            weights.append(f'{weights[0][:-4]}.bin')
        sums = [sha256_of(file) if Path(file).is_file() else file for file in weights]
        pipelines = [
            dataset.get('pipeline') for dataset in dataset_configs(cfg, 'test')
        ]
        identity = [cfg.model, cfg.get('use'), pipelines, self.model.classes]
        text = json.dumps([*identity, sums, settings], default=_name_part)
        return sha256(text.encode()).hexdigest()

    def detect(
        self,
        source: object,
        *,
        vis_file: str | Path | None = None,
        strict: bool = False,
        **options,
    ) -> VideoDetections:
        """The detections of one source, as one record.

        Parts of a file that cannot be decoded are left out and named in ``damage``, the
        reasons in ``damage_reasons``; if the source does not open or breaks off,
        ``error`` explains why.

        Args:
            source: See :meth:`stream`.
            vis_file: Video to write, with the detections drawn into it.
            strict: Raise an error instead.
            options: Arguments of :meth:`stream`.
        """
        detections = VideoDetections(
            source=name_source(source), classes=self.model.classes
        )

        def note_damage(damage: DamagedVideo) -> None:
            stretches = [*(detections.damage or ()), damage.stretch]
            detections.damage = join_stretches(stretches)
            reasons = dict.fromkeys([*(detections.damage_reasons or ()), str(damage)])
            detections.damage_reasons = [*reasons][:MAX_REASONS]

        reader = None
        try:
            fps = options.pop('fps', None)
            reader = open_source(source, fps=fps, on_damage=note_damage)
            is_stream, is_drawn = isinstance(reader, FrameStream), vis_file is not None
            pictures = reader.branch() if is_stream else reader.path
            keyframes = self.stream(reader, on_damage=note_damage, **options)
            keyframes = self._record(detections, keyframes, is_drawn=is_drawn)
            if is_drawn:
                render_video(
                    pictures,
                    keyframes,
                    vis_file,
                    start=options.get('start', 0.0),
                    end=options.get('end'),
                    show_progress=self.show_progress,
                    on_damage=note_damage,
                )
            deque(keyframes, maxlen=0)  # those that no frame needed
        except Exception as error:
            detections.error = explain(error)
            if strict or detections.error is None:
                raise
        has_tracker = options.get('tracker', DEFAULT_TRACKER) not in (None, 'none')
        if has_tracker or any(keyframe.ids for keyframe in detections.keyframes):
            detections.tubes = list_tubes(detections.keyframes)
        if reader is not None:
            _note_frames(detections, reader)
        return detections

    def _record(
        self,
        detections: VideoDetections,
        keyframes: Iterable[Keyframe],
        *,
        is_drawn: bool,
    ) -> Iterator[Keyframe]:
        is_quiet = is_drawn or not self.show_progress  # frames are counted instead
        name = Path(detections.source).name
        for keyframe in tqdm(keyframes, desc=name, unit='keyframe', disable=is_quiet):
            detections.keyframes.append(keyframe)
            yield keyframe

    def __call__(
        self,
        inputs: object,
        batch_size: int = 1,
        *,
        out_dir: str | Path | None = None,
        no_save_vis: bool = False,
        no_save_pred: bool = False,
        pred_out_file: str | Path | None = None,
        **options,
    ) -> dict:
        """Detect in videos.

        Args:
            inputs: See :func:`.list_sources`.
            batch_size: Clips that the model sees at once.
            out_dir: Folder for ``vis/NAME.mp4`` with the detections drawn into it, and
                ``preds/NAME.json``.
            no_save_vis, no_save_pred: Leave these out.
            pred_out_file: JSON file for all predictions.
            options: Arguments of :meth:`stream`.

        Returns:
            ``predictions``: :class:`.VideoDetections` of each source; if several, those
            that cannot be read have an ``error``. ``visualization``: paths of the
            videos written, None where there is none.

        Raises:
            UserError: the only source cannot be read, or an output is an input.
        """
        sources, inputs = list_sources(inputs), input_files(inputs)
        vis = None if no_save_vis or not out_dir else Path(out_dir, 'vis')
        preds = None if no_save_pred or not out_dir else Path(out_dir, 'preds')
        names, files = _file_names(sources), [*self.input_files, *inputs]
        for folder, suffix in (vis, 'mp4'), (preds, 'json'):
            if folder is not None:
                check_writable_dir(folder, purpose='out_dir')
                outputs = [folder / f'{name}.{suffix}' for name in names]
                check_no_input(outputs, files, purpose='out_dir:')
        if pred_out_file:
            purpose = 'pred_out_file'
            check_writable_file(pred_out_file, purpose=purpose, inputs=files)
        predictions, videos = [], []
        options['batch_size'] = batch_size
        for source, name in zip(sources, names, strict=True):
            vis_file = vis and vis / f'{name}.mp4'
            detections = self.detect(source, vis_file=vis_file, **options)
            if detections.error is not None:
                if len(sources) == 1 and not detections.keyframes:
                    raise UserError(detections.error)
                print_log(detections.error, logger='current', level=logging.WARNING)
            if preds:
                detections.save(preds / f'{name}.json')
            predictions.append(detections)
            is_drawn = vis_file and detections.error is None
            videos.append(str(vis_file) if is_drawn else None)
        if pred_out_file:
            write_json(pred_out_file, [video.to_dict() for video in predictions])
        return dict(predictions=predictions, visualization=videos)


def _note_frames(detections: VideoDetections, reader: Video | FrameStream) -> None:
    """Note rate, size and number of the frames of an open source."""
    with suppress(UserError):  # no picture can be decoded
        if reader.size is not None:
            detections.fps = reader.fps
            detections.height, detections.width = reader.size
            detections.total_frames = len(reader)
            if reader.pixel_aspect != 1:
                detections.pixel_aspect = reader.pixel_aspect


def _name_part(part: object) -> str:
    """The text in a digest for a part that JSON cannot express."""
    return getattr(part, 'name', None) or getattr(
        part, '__qualname__', repr(type(part))
    )


def _file_names(sources: Iterable) -> list[str]:
    """A name of its own for the results of each source."""
    names: list[str] = []
    for source in sources:
        path = re.split('[?#]', name_source(source))[0].rstrip('/')
        stem = re.sub(r'[^\w.-]+', '_', without_suffix(path.rpartition('/')[2]))
        numbered = (f'{stem}_{number}' for number in count(1))
        candidates = chain([stem], numbered)
        names.append(next(name for name in candidates if name not in names))
    return names


# Options of the command lines.
ModelOptions = Annotated[
    dict, OptionsOf(ActionDetInferencer, without=('cfg_options', 'show_progress'))
]
StreamOptions = Annotated[
    dict,
    OptionsOf(ActionDetInferencer.stream, without=('fps', 'on_damage', 'predictor')),
]
