"""From videos and streams to the clips that a model sees."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmcv.transforms import Compose
from mmengine.config import Config

from stmixer_mm.apis.config import building
from stmixer_mm.datasets.clips import (
    Clip,
    EvenFrames,
    EvenTimes,
    RecentFrames,
    cut_clips,
)
from stmixer_mm.datasets.frames import keyframe_index, nearest_frame
from stmixer_mm.datasets.pipelines import dataset_configs
from stmixer_mm.datasets.streams import FrameStream
from stmixer_mm.datasets.transforms import SampleKeyframeClip
from stmixer_mm.datasets.videos import (
    DamagedVideo,
    OnDamage,
    Video,
    open_video,
    video_sample,
)
from stmixer_mm.errors import UserError, blame
from stmixer_mm.registry import TRANSFORMS
from stmixer_mm.structures import Keyframe

_OPENERS = ('OpenVideo', 'DecordInit', 'PyAVInit')
_DECODERS = (
    *('DecodeFrameFiles', 'DecodeFrames', 'DecordDecode', 'PyAVDecode'),
    'RawFrameDecode',
)


class VideoInfo(NamedTuple):
    """Frames, rate and size of a video file, damaged or not."""

    total_frames: int
    fps: float  # the mean
    height: int
    width: int

    @property
    def duration_s(self) -> float:
        return self.total_frames / self.fps


def video_info(video: str | Path) -> VideoInfo:
    """Frames, rate and size of a video file.

    Raises:
        UserError: it is missing, or cannot be read as a video.
    """
    opened = open_video(video, on_damage=lambda damage: None)
    return VideoInfo(len(opened), opened.fps, *opened.size)


class ClipLoader:
    """The test pipeline of a config, for clips that are cut beforehand.

    It decodes from an open video instead of opening one, and a clip may lack frames.

    Args:
        cfg: Config whose test pipeline has a :class:`.SampleKeyframeClip`.

    Attributes:
        sampler: The transform that chooses the frames of a clip.
        before, after: Frames that a clip spans around the one that it is cut at.
        ahead_s: Seconds from there to the keyframe.
    """

    def __init__(self, cfg: Config) -> None:
        with building(cfg, 'test pipeline'):
            dataset = next(dataset_configs(cfg, 'test'), {})
            steps = []
            for config in dataset.get('pipeline') or []:
                name = config['type'].rpartition('.')[-1]
                part = TRANSFORMS.get(config['type'])
                if inspect.isclass(part) and issubclass(part, SampleKeyframeClip):
                    steps.append(self._build_sampler(config))
                elif name not in _OPENERS:
                    is_decoder = name in _DECODERS
                    steps.append(dict(type='DecodeFrames') if is_decoder else config)
            if not hasattr(self, 'sampler'):
                raise UserError(
                    'The test pipeline of the config has no SampleKeyframeClip, which '
                    'defines a clip; give test_dataloader.dataset.pipeline one.'
                )
            self._transform = Compose(
                [
                    TRANSFORMS.build(one) if isinstance(one, dict) else one
                    for one in steps
                ]
            )
        self.before = self.sampler.place * self.sampler.frame_interval
        span = (self.sampler.clip_len - 1) * self.sampler.frame_interval
        self.after = span - self.before

    def _build_sampler(self, config: dict) -> SampleKeyframeClip:
        taken = inspect.signature(SampleKeyframeClip).parameters
        given = {key: value for key, value in config.items() if key in taken}
        self.ahead_s = given.get('ahead_s') or 0.0
        if self.ahead_s:  # clips are cut where they end: there may be no keyframe yet
            given['ahead_s'] = 0.0
        self.sampler = SampleKeyframeClip(**given)
        return SampleKeyframeClip(**given | dict(allow_short=True))

    @property
    def spans(self) -> tuple[int, int, float]:
        """The first arguments of a :class:`.RecentFrames`."""
        return self.before, self.after, self.ahead_s

    def load(
        self, clips: Iterable[Clip], on_damage: OnDamage | None
    ) -> Iterator[tuple[Clip, dict]]:
        """Clips, and what the pipeline makes of each.

        A clip that cannot be decoded is left out if ``on_damage`` can be called.
        """
        for clip in clips:
            try:
                with blame(f'The test pipeline fails at {clip.time_s:g} s'):
                    inputs = self._transform(clip.sample)
            except DamagedVideo as error:
                if on_damage is None:
                    raise
                on_damage(error)
            else:
                yield clip._replace(sample={}), inputs


class Plan(NamedTuple):
    """The clips of a source."""

    clips: Iterator[Clip]
    apart: int  # the most frames from one to the next
    shows: Callable[[Keyframe], bool]  # whether it is in the part asked for


def plan_clips(
    source: Video | FrameStream,
    loader: ClipLoader,
    *,
    interval_s: float | None,
    start: float,
    end: float | None,
    inside: bool,
) -> Plan:
    """Cut a source into the clips of its keyframes.

    Args:
        source: A video file, or a stream, whose frames are read as clips need them.
        loader: Defines a clip.
        interval_s: Seconds between keyframes. None: 1 s, or half a clip if ``inside``.
        start, end: Part of the source in seconds.
        inside: Move clips to lie within the source, and have one reach its end.

    Raises:
        UserError: the part has no keyframe, or a video file is shorter than a clip.
    """
    if interval_s is not None and not 0 < interval_s < math.inf:
        raise UserError(f'The interval of {interval_s} s must be positive.')
    start, end = _clip_times(start, end, interval_s or 1.0, loader.ahead_s)
    plan = _plan_stream if isinstance(source, FrameStream) else _plan_file
    return plan(source, loader, interval_s, start, end, inside)


def _clip_times(
    start: float, end: float | None, interval_s: float, ahead_s: float
) -> tuple[float, float | None]:
    """When the clips for keyframes from ``start`` to ``end`` end."""
    if not ahead_s:
        return start, end
    start += interval_s * max(0, math.ceil((ahead_s - start) / interval_s - 1e-6))
    if end is not None and start >= end:
        raise UserError(
            f'The model predicts ahead_s={ahead_s:g} ahead, so that the first keyframe '
            f'is at {start:g} s, but the part asked for ends at {end:g} s.'
        )
    return max(start - ahead_s, 0.0), None if end is None else end - ahead_s


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
    stop = duration_s if end is None else min(end, duration_s)
    if not 0 <= start < stop:
        raise UserError(
            f'start={start:g} s, end={"the end" if end is None else f"{end:g} s"}: '
            f'no such part of the video ({duration_s:.2f} s).'
        )
    interval_s = max(interval_s, frame_s)
    # If an interval ends exactly at the stop, that adds no keyframe.
    count = max(1, math.ceil((stop - start) / interval_s - 1e-6))
    return start + interval_s * np.arange(count)


def _plan_file(
    video: Video,
    loader: ClipLoader,
    interval_s: float | None,
    start: float,
    end: float | None,
    inside: bool,
) -> Plan:
    times = keyframe_times(
        len(video) / video.fps,
        interval_s=interval_s or 1.0,
        start=start,
        end=end,
        frame_s=1 / video.fps,
    )
    before, after = loader.before, loader.after
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
        for time_s, middle in zip(times.tolist(), map(int, middles), strict=True):
            around = range(max(middle - before, 0), min(middle + after + 1, len(video)))
            sample = dict(video_sample(video.path, time_s), video_reader=video)
            keyframe_s = time_s + loader.ahead_s
            yield Clip(
                time_s=keyframe_s,
                frame_index=_frame_at(video, keyframe_s) if loader.ahead_s else middle,
                frames=around,
                times=video.times[around.start : around.stop],
                size=video.size,
                sample=sample | video.clock,
            )

    loader.sampler(next(clips()).sample)  # raises if the video is too short
    apart = int(np.diff(middles).max(initial=0))
    return Plan(clips(), apart, lambda found: found.frame_index in frames)


def _frame_at(video: Video, time_s: float) -> int:
    """Number of the frame at a time, which may be after the last frame."""
    beyond = time_s - video.times[-1]
    if beyond <= 0:
        return keyframe_index(time_s, **video.clock)
    return len(video) - 1 + nearest_frame(beyond * video.fps)


def _plan_stream(
    stream: FrameStream,
    loader: ClipLoader,
    interval_s: float | None,
    start: float,
    end: float | None,
    inside: bool,
) -> Plan:
    ring = RecentFrames(*loader.spans, name=stream.name, fps=stream.fps)
    if inside and interval_s is None:
        keyframes = EvenFrames(max(1, ring.before), start, end)
        apart = keyframes.step
    else:
        keyframes = EvenTimes(interval_s or 1.0, start, end)
        apart = math.ceil(keyframes.interval_s * stream.fps)
    return Plan(
        cut_clips(stream, keyframes, ring, inside=inside),
        apart,
        lambda found: keyframes.start <= found.time_s - stream.start_s < keyframes.end,
    )
