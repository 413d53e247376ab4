"""Detection on a video: a model from a config, then one record per keyframe.

Of a model of tubelets there is a record per frame, and persons have the ids of tubes.
"""

import math
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmaction.structures import ActionDataSample
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import nn

from stmixer_mm.apis.tubelets import ClipTubelets, join_tubelets
from stmixer_mm.checks.config import (
    building,
    check_arguments,
    check_device,
    load_config,
    merge_overrides,
)
from stmixer_mm.datasets.annotations.ava_csv import read_label_names
from stmixer_mm.datasets.frames import clip_indices, keyframe_index
from stmixer_mm.datasets.pipelines import dataset_configs
from stmixer_mm.datasets.transforms import SampleKeyframeClip
from stmixer_mm.datasets.videos import (
    DamagedVideo,
    OnDamage,
    Video,
    open_video,
    video_sample,
)
from stmixer_mm.engine.checkpoints import load_weights
from stmixer_mm.errors import UserError, blame
from stmixer_mm.evaluation.functional.tubelet_linking import Linking, TubeletLinker
from stmixer_mm.models.heads.tubelet_head import PRESENCE
from stmixer_mm.registry import MODELS, TRANSFORMS
from stmixer_mm.visualization.visualizer import top_actions

_OPENERS = ('OpenVideo', 'DecordInit')
_DECODERS = ('DecodeFrameFiles', 'DecodeFrames', 'DecordDecode', 'RawFrameDecode')


class KeyframeDetections(NamedTuple):
    """What was found at one keyframe of a video; with tubelets, in any frame."""

    time_s: float
    frame_index: int  # of the keyframe, counted from 0
    bboxes: np.ndarray  # (n, 4): pixel xyxy in the video's own frame
    actions: list[list[tuple[str, float]]]  # per box (label, score), best first
    ids: list[int] | None = None  # per box, of its tube; None: of keyframes alone


class VideoInfo(NamedTuple):
    """What is known of a video file, damaged or not."""

    total_frames: int
    fps: float  # the mean
    height: int
    width: int

    @property
    def duration_s(self) -> float:
        return self.total_frames / self.fps


def init_detector(
    config: str | Path | Config,
    checkpoint: str | Path | None,
    *,
    device: str = 'cpu',
    label_map: str | Path | None = None,
    cfg_options: dict | None = None,
) -> nn.Module:
    """Build a detector and load its parameters, all of which must fit.

    Scenes without a person stay empty: the head's ``fallback_topk`` is set to 0
    unless ``cfg_options`` says otherwise.

    Args:
        config: Config file, or what was read from one.
        checkpoint: File or URL; None initialises the parameters as for training.
        device: As in 'cpu' or 'cuda:0'.
        label_map: Label map (pbtxt) with the names of the actions. By default the
            names are those in the checkpoint, or of the config's test set.
        cfg_options: Overrides, dotted key → value.

    Returns:
        In evaluation mode, with ``cfg`` (Config) and ``classes``, the names of the
        label ids 1, 2, … (None: unknown).

    Raises:
        UserError: one sentence that names what is wrong.
    """
    cfg = deepcopy(config) if isinstance(config, Config) else load_config(config)
    merge_overrides(cfg, cfg_options)
    needed = {key: cfg.get(key) for key in ('model', 'default_scope')}
    check_arguments(Config(needed))
    check_device(device)

    with building(cfg, 'model'):
        model = MODELS.build(cfg.model)
        head = getattr(model, 'head', None)
        is_set = 'model.head.fallback_topk' in (cfg_options or {})
        if hasattr(head, 'fallback_topk') and not is_set:
            head.fallback_topk = 0
    classes = None
    if checkpoint is None:
        model.init_weights()
    else:
        loaded = load_weights(model, checkpoint)
        if label_map is None:
            classes = _classes_in(loaded, source=checkpoint)
    model.cfg = cfg
    with building(cfg, 'test dataset'):
        model.classes = classes or _class_names(cfg, label_map)
    return model.to(device).eval()


def _classes_in(checkpoint: dict, *, source: str | Path) -> tuple[str, ...]:
    """The names of the actions that mmengine wrote into a checkpoint, if any."""
    remedy = 'give the names with --label-map (label_map=)'
    with blame(f'Checkpoint {source}: meta.dataset_meta.classes are not names', remedy):
        meta = checkpoint.get('meta') or {}
        classes = (meta.get('dataset_meta') or {}).get('classes') or ()
        if not isinstance(classes, list | tuple) or {*map(type, classes)} - {str}:
            raise ValueError(f'they are {reprlib.repr(classes)}')
        return tuple(classes)


def _class_names(cfg: Config, label_map: str | Path | None) -> tuple[str, ...] | None:
    dataset = next(dataset_configs(cfg, 'test'), {})
    if label_map is None:
        label_map = Path(
            dataset.get('data_root') or '', dataset.get('label_file') or ''
        )
        if not label_map.is_file():
            return None
    names = read_label_names(str(label_map))
    label_ids = dataset.get('custom_classes') or range(1, max(names) + 1)
    return tuple(names.get(label, f'action {label}') for label in label_ids)


def video_info(video: str | Path) -> VideoInfo:
    """Frames, rate and size of a video file.

    Raises:
        UserError: it is missing, or cannot be read as a video.
    """
    return _info(open_video(video, on_damage=lambda damage: None))


def _info(video: Video) -> VideoInfo:
    return VideoInfo(len(video), video.fps, *video.size)


def keyframe_times(
    duration_s: float,
    *,
    interval_s: float = 1.0,
    start: float = 0.0,
    end: float | None = None,
    frame_s: float = 0.0,
) -> np.ndarray:
    """Times in seconds from ``start``, every ``interval_s``, before ``end``.

    There is at least one. ``frame_s``, the seconds of a frame, is the shortest interval.

    Raises:
        UserError: there is no such time in a video of ``duration_s`` seconds.
    """
    if not (interval_s > 0 and math.isfinite(interval_s)):
        raise UserError(f'The interval of {interval_s} s must be positive.')
    stop = duration_s if end is None else min(end, duration_s)
    if not 0 <= start < stop:
        raise UserError(
            f'From {start:g} s to {"the end" if end is None else f"{end:g} s"} there '
            f'is nothing of the video, which lasts from 0 s to {duration_s:.2f} s.'
        )
    interval_s = max(interval_s, frame_s)
    # A multiple of the interval that ends just there adds no keyframe.
    count = max(1, math.ceil((stop - start) / interval_s - 1e-6))
    return start + interval_s * np.arange(count)


def detect_video(
    model: nn.Module,
    video: str | Path,
    *,
    interval_s: float | None = None,
    start: float = 0.0,
    end: float | None = None,
    score_thr: float = 0.3,
    batch_size: int = 1,
    on_damage: OnDamage | None = None,
) -> Iterator[KeyframeDetections]:
    """Detect persons and their actions along a video.

    The video is opened once, and only the frames of the clips are decoded; clips come
    from the config's test pipeline. Inputs are checked before this returns.

    A model of tubelets says in every frame of a clip where persons are. Its clips
    overlap, and their tubelets are joined to tubes, see :func:`.join_tubelets`: there is
    a record for each frame, and RAM holds those of a clip.

    Args:
        model: From :func:`init_detector`.
        video: Video file.
        interval_s: Seconds between keyframes, the first of which is at ``start``; at
            least those of a frame are taken. Of tubelets it is between the middles of
            clips, which are moved to lie within the video. By default 1 s; of tubelets
            half a clip.
        start, end: Part of the video in seconds.
        score_thr: Actions with lower scores are left out; their persons stay.
        batch_size: Clips that the model sees at once.
        on_damage: Is told of each stretch that the file lacks, and of each keyframe
            that is left out as its clip cannot be decoded; without it that is an error.

    Yields:
        In order of time.

    Raises:
        UserError: the video cannot be read, is shorter than a clip, or has nothing
            between ``start`` and ``end``.
    """
    reader = open_video(video, on_damage)
    info = _info(reader)
    times = keyframe_times(
        info.duration_s,
        interval_s=1.0 if interval_s is None else interval_s,
        start=start,
        end=end,
        frame_s=1 / info.fps,
    )
    if batch_size < 1:
        raise UserError(f'batch_size={batch_size} must be at least 1.')
    with building(model.cfg, 'test pipeline'):
        pipeline = _clip_pipeline(model.cfg)
    by_tubelets = getattr(getattr(model, 'head', None), 'box_dims', 2) == 3
    if by_tubelets:
        sampler = next(
            one for one in pipeline.transforms if isinstance(one, SampleKeyframeClip)
        )
        frames = reader.part(start, end)
        wanted = () if interval_s is None else times
        middles = [keyframe_index(time_s, **reader.clock) for time_s in wanted]
        middles = _clip_middles(sampler, frames, len(reader), middles)
        times = reader.times[middles]
    clips = _load_clips(pipeline, reader, times.tolist(), on_damage)
    first = list(islice(clips, 1))  # a video that is too short is found out here
    samples = _predict(model, chain(first, clips), batch_size)
    if by_tubelets:
        # A person may be missed in a clip's time, and between clips.
        reach = (sampler.clip_len - 1) * sampler.frame_interval + 1
        linking = Linking(end_after=int(np.diff(middles).max(initial=reach)))
        found = _read_tubelets(model, reader, samples, score_thr, sampler, linking)
        return (one for one in found if one.frame_index in frames)
    return _read_keyframes(model, reader, samples, score_thr)


def _clip_middles(
    sampler: SampleKeyframeClip,
    frames: range,
    total_frames: int,
    middles: Sequence[int],
) -> np.ndarray:
    """Middles of clips that lie within a video, rising.

    Args:
        sampler: Says what a clip is.
        frames: Those to look at.
        total_frames: Of the video.
        middles: Those that are asked for; half a clip apart if there are none.
    """
    before = sampler.clip_len // 2 * sampler.frame_interval
    after = (sampler.clip_len - 1) * sampler.frame_interval - before
    if not len(middles):
        middles = frames[:: max(1, before)]
    # One at the end too, which the last of them need not reach.
    middles = np.clip([*middles, frames[-1]], before, total_frames - 1 - after)
    return np.unique(middles.clip(0))


def _load_clips(
    pipeline: Compose, video: Video, times: list[float], on_damage: OnDamage | None
) -> Iterator[dict]:
    for time_s in times:
        sample = dict(video_sample(video.path, time_s), video_reader=video)
        try:
            with blame(f'The test pipeline fails at {time_s:g} s'):
                clip = pipeline(sample | video.clock)
        except DamagedVideo as error:
            if on_damage is None:
                raise
            on_damage(error)
        else:
            yield clip


def _predict(
    model: nn.Module, clips: Iterator[dict], batch_size: int
) -> Iterator[ActionDataSample]:
    while batch := list(islice(clips, batch_size)):
        with torch.inference_mode():
            samples = model.test_step(pseudo_collate(batch))
        yield from samples


def _as_array(values: object) -> np.ndarray:
    return torch.as_tensor(values).cpu().numpy()


def _read_keyframes(
    model: nn.Module,
    video: Video,
    samples: Iterable[ActionDataSample],
    score_thr: float,
) -> Iterator[KeyframeDetections]:
    size = video.size[::-1] * 2
    for sample in samples:
        found = sample.pred_instances
        scores = _as_array(found.scores)
        time_s = sample.metainfo['timestamp']
        yield KeyframeDetections(
            time_s=time_s,
            frame_index=keyframe_index(time_s, **video.clock),
            bboxes=_as_array(found.bboxes) * size,
            actions=[top_actions(row, model.classes, score_thr) for row in scores],
        )


def _read_tubelets(
    model: nn.Module,
    video: Video,
    samples: Iterable[ActionDataSample],
    score_thr: float,
    sampler: SampleKeyframeClip,
    linking: Linking,
) -> Iterator[KeyframeDetections]:
    size = video.size[::-1] * 2
    clips = (
        ClipTubelets(
            frames=clip_indices(
                keyframe_index(sample.metainfo['timestamp'], **video.clock),
                clip_len=sampler.clip_len,
                frame_interval=sampler.frame_interval,
                total_frames=len(video),
            ),
            bboxes=_as_array(sample.pred_instances.bboxes) * size,
            person_scores=_as_array(sample.pred_instances.person_scores),
            action_scores=_as_array(sample.pred_instances.scores),
            scores=_as_array(sample.pred_instances.tubelet_scores),
        )
        for sample in samples
    )
    # A threshold of the user's below it is one for all frames.
    presence = min(PRESENCE, getattr(model.head, 'score_thr', PRESENCE))
    for found in join_tubelets(
        clips, TubeletLinker(linking, by_overlap=True), presence=presence
    ):
        scores = found.action_scores
        yield KeyframeDetections(
            time_s=float(video.times[found.frame]),
            frame_index=found.frame,
            bboxes=found.bboxes,
            actions=[top_actions(row, model.classes, score_thr) for row in scores],
            ids=found.ids.tolist(),
        )


def _clip_pipeline(cfg: Config) -> Compose:
    """The test pipeline without opening the video, decoding from one that is open."""
    dataset = next(dataset_configs(cfg, 'test'), {})
    transforms = dataset.get('pipeline') or []
    names = [transform['type'].rpartition('.')[-1] for transform in transforms]
    if 'SampleKeyframeClip' not in names:
        raise UserError(
            'The test pipeline of the config has no SampleKeyframeClip, which says what '
            'a clip is; give test_dataloader.dataset.pipeline one.'
        )
    return Compose(
        [
            TRANSFORMS.build(
                dict(type='DecodeFrames') if name in _DECODERS else transform
            )
            for name, transform in zip(names, transforms, strict=True)
            if name not in _OPENERS
        ]
    )
