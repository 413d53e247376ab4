"""Clips of videos and streams, as a model takes them."""

import inspect
from collections.abc import Iterable, Iterator
from functools import partial

from mmcv.transforms import Compose
from mmengine.config import Config

from stmixer_mm.apis.config import building
from stmixer_mm.datasets.clips import Clip, ClipCutter
from stmixer_mm.datasets.pipelines import dataset_configs
from stmixer_mm.datasets.streams import FrameStream
from stmixer_mm.datasets.transforms import SampleKeyframeClip
from stmixer_mm.datasets.videos import DamagedVideo, OnDamage, Video
from stmixer_mm.errors import UserError, blame
from stmixer_mm.registry import TRANSFORMS

_OPENERS = ('OpenVideo', 'DecordInit', 'PyAVInit')
_DECODERS = (
    *('DecodeFrameFiles', 'DecodeFrames', 'DecordDecode', 'PyAVDecode'),
    'RawFrameDecode',
)


class _FrameChoice(SampleKeyframeClip):
    """Samples those frames of a clip that its sample's ``choose`` asks for, if any."""

    def transform(self, results: dict) -> dict:
        results = super().transform(results)
        if choose := results.pop('choose', None):
            results['frame_inds'] = choose(results['frame_inds'])
            results['clip_len'] = len(results['frame_inds'])
        return results


class ClipLoader:
    """The test pipeline of a config, for clips that are cut beforehand.

    It decodes from an open video instead of opening one, and a clip may lack frames.

    Args:
        cfg: Config whose test pipeline has a :class:`.SampleKeyframeClip`.

    Attributes:
        sampler: The transform that chooses the frames of a clip.
        transforms: The pipeline.
        before, after: Frames that a clip spans around the one that it is cut at.
        ahead_s: Seconds from there to the keyframe.
    """

    def __init__(self, cfg: Config) -> None:
        with building(cfg, 'test pipeline'):
            dataset = next(dataset_configs(cfg, 'test'), {})
            steps = [self._step(config) for config in dataset.get('pipeline') or []]
            if not hasattr(self, 'sampler'):
                raise UserError(
                    'The test pipeline of the config has no SampleKeyframeClip, which '
                    'defines a clip; give test_dataloader.dataset.pipeline one.'
                )
            self.transforms = [step for step in steps if step is not None]
            self._transform = Compose(self.transforms)
        self.before = self.sampler.place * self.sampler.frame_interval
        span = (self.sampler.clip_len - 1) * self.sampler.frame_interval
        self.after = span - self.before

    def _step(self, config: dict) -> object:
        """The replacement of a transform of the config, if there is any."""
        name, part = config['type'].rpartition('.')[-1], TRANSFORMS.get(config['type'])
        if inspect.isclass(part) and issubclass(part, SampleKeyframeClip):
            return self._build_sampler(config)
        if name in _OPENERS:
            return None
        return TRANSFORMS.build(
            dict(type='DecodeFrames') if name in _DECODERS else config
        )

    def _build_sampler(self, config: dict) -> SampleKeyframeClip:
        parameters = inspect.signature(SampleKeyframeClip).parameters
        arguments = {key: value for key, value in config.items() if key in parameters}
        self.ahead_s = arguments.get('ahead_s') or 0.0
        if self.ahead_s:  # clips are cut where they end: there may be no keyframe yet
            arguments['ahead_s'] = 0.0
        self.sampler = SampleKeyframeClip(**arguments)
        return _FrameChoice(**arguments | dict(allow_short=True))

    @property
    def spans(self) -> tuple[int, int, float]:
        """The first arguments of a :class:`.RecentFrames`."""
        return self.before, self.after, self.ahead_s

    def cut(
        self, source: Video | FrameStream, *, start: float = 0.0, **part
    ) -> ClipCutter:
        """Cut a source into clips.

        Args:
            source: A video file or a stream.
            start, part: See :class:`.ClipCutter`.

        Raises:
            UserError: there is no such part, or a video file is shorter than a clip.
        """
        if isinstance(source, Video):
            duration_s = len(source) / source.fps
            if start >= duration_s:
                raise UserError(
                    f'start={start:g} s is past the end of {source.path} '
                    f'({duration_s:.2f} s).'
                )
            clock = dict(total_frames=len(source), frame_index=0)
            self.sampler(dict(filename=source.path, **clock))  # raises if it is short
        cutter = ClipCutter(source, self.spans, start=start, **part)
        if isinstance(source, Video):
            source.reads_on = cutter.interval <= self.sampler.clip_len
        return cutter

    def load(
        self, clips: Iterable[Clip], on_damage: OnDamage | None, stream: object = None
    ) -> Iterator[tuple[Clip, object]]:
        """Clips, and what the pipeline makes of each.

        A clip that cannot be decoded is left out if ``on_damage`` can be called. A
        ``stream`` has only the frames decoded that it chooses.
        """
        for clip in clips:
            if stream is not None:
                clip.sample['choose'] = partial(stream.choose, clip)
            try:
                with blame(f'The test pipeline fails at {clip.time_s:g} s'):
                    inputs = self._transform(clip.sample)
            except DamagedVideo as error:
                if on_damage is None:
                    raise
                on_damage(error)
            else:
                inputs = inputs if stream is None else stream.take(inputs)
                yield clip._replace(sample={}), inputs
