"""Detection on a video: a model from a config, then one record per keyframe.

A model of tubelets yields a record per frame, and persons have the ids of tubes.
"""

import math
import reprlib
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmcv.ops import nms
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from torch import nn

from stmixer_mm.apis.read import read_keyframes, read_tubelets
from stmixer_mm.apis.tracking import Tracker
from stmixer_mm.checks.config import (
    building,
    check_arguments,
    check_device,
    load_config,
    merge_overrides,
)
from stmixer_mm.datasets.annotations.ava_csv import read_label_names
from stmixer_mm.datasets.frames import keyframe_index, nearest_frame
from stmixer_mm.datasets.pipelines import dataset_configs
from stmixer_mm.datasets.streams import (
    Clip,
    EvenFrames,
    EvenTimes,
    FrameStream,
    RecentFrames,
    cut_clips,
    open_source,
)
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
from stmixer_mm.evaluation.functional.tubelet_linking import Linking
from stmixer_mm.models.detectors.base import finds_tubelets
from stmixer_mm.projects.export.detector import put_in_place
from stmixer_mm.projects.export.formats import format_of
from stmixer_mm.registry import MODELS, TRANSFORMS
from stmixer_mm.structures import Keyframe

_OPENERS = ('OpenVideo', 'DecordInit')
_DECODERS = ('DecodeFrameFiles', 'DecodeFrames', 'DecordDecode', 'RawFrameDecode')


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
        checkpoint: File or URL, or what tools/export.py wrote; None initialises the
            parameters as for training.
        device: Such as 'cpu' or 'cuda:0'.
        label_map: Label map (pbtxt) with the names of the actions. By default the
            names come from the checkpoint or the config's test set.
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

    if not (logger := MMLogger.get_current_instance()).level:
        logger.setLevel(cfg.get('log_level') or 'INFO')  # as the runner does
    exported = format_of(checkpoint) is not None
    if exported:
        put_in_place(cfg, checkpoint)
    with building(cfg, 'model'):
        model = MODELS.build(cfg.model)
        head = getattr(model, 'head', None)
        is_set = 'model.head.fallback_topk' in (cfg_options or {})
        if hasattr(head, 'fallback_topk') and not is_set:
            head.fallback_topk = 0
        if hasattr(model, 'with_query_vectors') and not finds_tubelets(model):
            model.with_query_vectors = True  # for a tracker
    classes = None
    if checkpoint is None:
        model.init_weights()
    elif exported:
        classes = None if label_map else model.metadata.classes
    else:
        loaded = load_weights(model, checkpoint)
        if label_map is None:
            classes = _classes_in(loaded, source=checkpoint)
    model.cfg = cfg
    with building(cfg, 'test dataset'):
        model.classes = classes or _class_names(cfg, label_map)
    num_actions = getattr(head, 'num_classes', 0) - 1
    if label_map and 0 < num_actions != len(model.classes):
        raise UserError(
            f'{label_map} names {len(model.classes)} actions, but the model has '
            f'{num_actions}; give the label map that it was trained with.'
        )
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


def _check_interval(interval_s: float) -> None:
    if not (interval_s > 0 and math.isfinite(interval_s)):
        raise UserError(f'The interval of {interval_s} s must be positive.')


def keyframe_times(
    duration_s: float,
    *,
    interval_s: float = 1.0,
    start: float = 0.0,
    end: float | None = None,
    frame_s: float = 0.0,
) -> np.ndarray:
    """Times in seconds from ``start``, every ``interval_s``, before ``end``.

    There is at least one. ``frame_s``, how long a frame lasts, is the least interval.

    Raises:
        UserError: there is no such time in a video of ``duration_s`` seconds.
    """
    _check_interval(interval_s)
    stop = duration_s if end is None else min(end, duration_s)
    if not 0 <= start < stop:
        raise UserError(
            f'From {start:g} s to {"the end" if end is None else f"{end:g} s"} there '
            f'is nothing of the video, which lasts from 0 s to {duration_s:.2f} s.'
        )
    interval_s = max(interval_s, frame_s)
    # If an interval ends exactly at the stop, that adds no keyframe.
    count = max(1, math.ceil((stop - start) / interval_s - 1e-6))
    return start + interval_s * np.arange(count)


def detect_video(
    model: nn.Module,
    video: object,
    *,
    interval_s: float | None = None,
    start: float = 0.0,
    end: float | None = None,
    score_thr: float = 0.3,
    nms_thr: float | None = None,
    tracker: Tracker | None = None,
    batch_size: int = 1,
    on_damage: OnDamage | None = None,
) -> Iterator[Keyframe]:
    """Detect persons and their actions along a video or a stream of frames.

    A video file is opened once, and only the frames of clips are decoded; of a stream
    all are, and those of a clip are kept. Clips come from the config's test pipeline.
    Inputs, except a stream's frames, are checked before this returns.

    A model of tubelets says where persons are in every frame of a clip. Its clips
    overlap, and their tubelets are joined into tubes, see :func:`.join_tubelets`. Each
    frame then has a record, and RAM holds the records of one clip.

    Args:
        model: From :func:`init_detector`.
        video: Video file, or another source of :func:`.open_source`.
        interval_s: Seconds between keyframes, the first at ``start``; at least those of
            a frame. With tubelets it is between the middles of clips, which are moved
            to lie within the video. By default 1 s; with tubelets half a clip.
        start, end: Part of the video in seconds.
        score_thr: Actions with lower scores are left out; their persons stay.
        nms_thr: Leave out persons whose box has a larger IoU with a box of higher
            person score (with tubelets, in the middle of the clip); None: nobody.
        tracker: Gives persons in keyframes their ids; tubelets and track queries bring
            their own.
        batch_size: Clips that the model sees at once; with track queries it is 1.
        on_damage: Called with each stretch that the file lacks, and each keyframe left
            out because its clip cannot be decoded; without it that is an error.

    Yields:
        In order of time.

    Raises:
        UserError: the video cannot be read, is shorter than a clip, or has nothing
            between ``start`` and ``end``.
    """
    source = open_source(video, on_damage=on_damage)
    if batch_size < 1:
        raise UserError(f'batch_size={batch_size} must be at least 1.')
    _check_interval(1.0 if interval_s is None else interval_s)
    sampler, ahead_s = _sampler(clip_pipeline(model.cfg))
    by_tubelets = finds_tubelets(model)
    start, end = _clip_times(start, end, interval_s or 1.0, ahead_s)
    cut = _cut_stream if isinstance(source, FrameStream) else _cut_file
    plan = cut(source, sampler, interval_s, start, end, ahead_s, inside=by_tubelets)
    found = detect_clips(
        model,
        plan.clips,
        score_thr=score_thr,
        nms_thr=nms_thr,
        tracker=tracker,
        apart=plan.apart,
        batch_size=batch_size,
        on_damage=on_damage,
    )
    return (one for one in found if plan.shows(one)) if by_tubelets else found


def detect_clips(
    model: nn.Module,
    clips: Iterable[Clip],
    *,
    score_thr: float = 0.3,
    nms_thr: float | None = None,
    tracker: Tracker | None = None,
    apart: int = 0,
    batch_size: int = 1,
    on_damage: OnDamage | None = None,
) -> Iterator[Keyframe]:
    """Detect in clips, such as those of :class:`.RecentFrames`, in order of time.

    Args:
        model: From :func:`init_detector`.
        clips: Taken one by one, so that they may be cut as they are needed.
        score_thr, nms_thr, tracker, batch_size, on_damage: See :func:`detect_video`.
        apart: The most frames from one clip to the next; with tubelets, a person who
            is missed in one clip then keeps its id.
    """
    pipeline = clip_pipeline(model.cfg)
    sampler, ahead_s = _sampler(pipeline)
    sampler.allow_short = True  # a clip at the end of a stream may lack frames
    if ahead_s and finds_tubelets(model):
        raise UserError(
            f'The test pipeline has ahead_s={ahead_s:g}, but a model of tubelets says '
            'where persons are in the frames that it sees; leave ahead_s out.'
        )
    samples = _predict(
        model, _load_clips(pipeline, clips, on_damage), batch_size, nms_thr
    )
    if not finds_tubelets(model):
        return read_keyframes(
            model, samples, score_thr=score_thr, tracker=tracker, ahead_s=ahead_s
        )
    # A person may be missed in a clip's time, and between clips.
    linking = Linking(end_after=max(apart, sum(_spans(sampler)) + 1))
    return read_tubelets(
        model, samples, score_thr=score_thr, sampler=sampler, linking=linking
    )


def clip_spans(model: nn.Module) -> tuple[int, int, float]:
    """What a :class:`.RecentFrames` needs to know about a model's clips."""
    sampler, ahead_s = _sampler(clip_pipeline(model.cfg))
    return *_spans(sampler), ahead_s


def _clip_times(
    start: float, end: float | None, interval_s: float, ahead_s: float
) -> tuple[float, float | None]:
    """When the clips for keyframes from ``start`` to ``end`` end.

    Raises:
        UserError: none of these clips ends after the source began.
    """
    if not ahead_s:
        return start, end
    start += interval_s * max(0, math.ceil((ahead_s - start) / interval_s - 1e-6))
    if end is not None and start >= end:
        raise UserError(
            f'The model looks ahead_s={ahead_s:g} ahead, so that the first keyframe is '
            f'at {start:g} s, but the part asked for ends at {end:g} s; ask for more.'
        )
    return max(start - ahead_s, 0.0), None if end is None else end - ahead_s


class _Plan(NamedTuple):
    """The clips of a source."""

    clips: Iterator[Clip]
    apart: int  # the most frames from one to the next
    shows: Callable[[Keyframe], bool]  # whether it is in the part asked for


def _cut_file(
    video: Video,
    sampler: SampleKeyframeClip,
    interval_s: float | None,
    start: float,
    end: float | None,
    ahead_s: float,
    *,
    inside: bool,
) -> _Plan:
    info, (before, after) = _info(video), _spans(sampler)
    times = keyframe_times(
        info.duration_s,
        interval_s=1.0 if interval_s is None else interval_s,
        start=start,
        end=end,
        frame_s=1 / info.fps,
    )
    frames = video.part(start, end)
    middles = [keyframe_index(time_s, **video.clock) for time_s in times]
    if inside:
        if interval_s is None:
            middles = frames[:: max(1, before)]
        # One at the end too, because the last of these may not reach it.
        last = len(video) - 1 - after
        middles = np.unique(np.clip([*middles, frames[-1]], before, last).clip(0))
        times = video.times[middles]

    def clips() -> Iterator[Clip]:
        for time_s, middle in zip(times.tolist(), middles, strict=True):
            around = range(max(middle - before, 0), min(middle + after + 1, len(video)))
            sample = dict(video_sample(video.path, time_s), video_reader=video)
            keyframe = int(middle)
            if ahead_s:
                keyframe = _frame_at(video, time_s + ahead_s)
            yield Clip(
                time_s=time_s + ahead_s,
                frame_index=keyframe,
                frames=around,
                times=video.times[around.start : around.stop],
                size=video.size,
                sample=sample | video.clock,
            )

    sampler(next(clips()).sample)  # a video that is too short is found out here
    apart = int(np.diff(middles).max(initial=0))
    return _Plan(clips(), apart, lambda found: found.frame_index in frames)


def _frame_at(video: Video, time_s: float) -> int:
    """Number of the frame at a time, which may lie beyond the last frame."""
    beyond = time_s - video.times[-1]
    if beyond <= 0:
        return keyframe_index(time_s, **video.clock)
    return len(video) - 1 + nearest_frame(beyond * video.fps)


def _cut_stream(
    stream: FrameStream,
    sampler: SampleKeyframeClip,
    interval_s: float | None,
    start: float,
    end: float | None,
    ahead_s: float,
    *,
    inside: bool,
) -> _Plan:
    ring = RecentFrames(*_spans(sampler), ahead_s, name=stream.name, fps=stream.fps)
    if inside and interval_s is None:
        keyframes = EvenFrames(max(1, ring.before), start, end)
        apart = keyframes.step
    else:
        keyframes = EvenTimes(interval_s or 1.0, start, end)
        apart = math.ceil(keyframes.interval_s * stream.fps)
    return _Plan(
        cut_clips(stream, keyframes, ring, inside=inside),
        apart,
        lambda found: keyframes.start <= found.time_s - stream.start_s < keyframes.end,
    )


def _load_clips(
    pipeline: Compose, clips: Iterator[Clip], on_damage: OnDamage | None
) -> Iterator[tuple[Clip, dict]]:
    for clip in clips:
        try:
            with blame(f'The test pipeline fails at {clip.time_s:g} s'):
                inputs = pipeline(clip.sample)
        except DamagedVideo as error:
            if on_damage is None:
                raise
            on_damage(error)
        else:
            yield clip._replace(sample={}), inputs


def _predict(
    model: nn.Module,
    loaded: Iterator[tuple[Clip, dict]],
    batch_size: int,
    nms_thr: float | None,
) -> Iterator[tuple[Clip, InstanceData]]:
    errors: list[UserError] = []
    loaded = _until_error(loaded, errors)
    interaction = getattr(model, 'query_interaction', None)
    if interaction is not None:  # each keyframe needs the tracks of the one before
        tracks, batch_size = interaction.start(), 1
    while batch := list(islice(loaded, batch_size)):
        clips, inputs = zip(*batch, strict=True)
        data = pseudo_collate(inputs)
        if interaction is not None:
            data['data_samples'][0].tracks = tracks
        with torch.inference_mode():
            samples = model.test_step(data)
        if interaction is not None:
            tracks = samples[0].tracks
        for clip, sample in zip(clips, samples, strict=True):
            yield clip, _without_duplicates(sample.pred_instances, nms_thr)
    if errors:
        raise errors[0]


def _until_error(loaded: Iterable, errors: list[UserError]) -> Iterator:
    """If a source breaks off, keep what came before, even within a batch."""
    try:
        yield from loaded
    except UserError as error:
        errors.append(error)


def _without_duplicates(found: InstanceData, nms_thr: float | None) -> InstanceData:
    scores = found.get('tubelet_scores', found.get('person_scores'))
    if nms_thr is None or scores is None or not len(found):
        return found
    bboxes, scores = torch.as_tensor(found.bboxes), torch.as_tensor(scores)
    if bboxes.dim() == 3:
        bboxes = bboxes[:, bboxes.shape[1] // 2]
    _, kept = nms(bboxes.float(), scores.float(), iou_threshold=nms_thr)
    return found[kept.sort().values]


def clip_pipeline(cfg: Config) -> Compose:
    """The test pipeline, decoding from an open video instead of opening one."""
    with building(cfg, 'test pipeline'):
        dataset = next(dataset_configs(cfg, 'test'), {})
        transforms = dataset.get('pipeline') or []
        names = [transform['type'].rpartition('.')[-1] for transform in transforms]
        if 'SampleKeyframeClip' not in names:
            raise UserError(
                'The test pipeline of the config has no SampleKeyframeClip, which says '
                'what a clip is; give test_dataloader.dataset.pipeline one.'
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


def _sampler(pipeline: Compose) -> tuple[SampleKeyframeClip, float]:
    """The transform that cuts clips at a given frame, and seconds to their keyframe."""
    sampler = next(
        one for one in pipeline.transforms if isinstance(one, SampleKeyframeClip)
    )
    ahead_s = sampler.ahead_s or 0.0
    if ahead_s:
        sampler.ahead_s = 0.0  # there may be no such keyframe yet
    return sampler, ahead_s


def _spans(sampler: SampleKeyframeClip) -> tuple[int, int]:
    before = sampler.place * sampler.frame_interval
    return before, (sampler.clip_len - 1) * sampler.frame_interval - before
