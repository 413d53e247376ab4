"""Transforms between a keyframe's annotation and the host's image transforms."""

from collections.abc import Sequence

import numpy as np
from mmaction.datasets.transforms import DecordDecode, RawFrameDecode, Resize
from mmcv.transforms import BaseTransform

from stmixer_mm.datasets.frames import (
    clip_indices,
    count_frames,
    keyframe_index,
)
from stmixer_mm.datasets.videos import Frames, shared_video
from stmixer_mm.errors import UserError, blame
from stmixer_mm.registry import TRANSFORMS
from stmixer_mm.structures import ABSENT, PRESENT


class _KeptFrames:
    """A short video, of which the frames that were once asked for stay in memory."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.clock = shared_video(path).clock
        self._pictures: dict[int, np.ndarray] = {}

    def get_batch(self, indices: Sequence[int]) -> Frames:
        indices = [*map(int, indices)]
        missing = sorted({*indices} - self._pictures.keys())
        if missing:
            pictures = shared_video(self._path).get_batch(missing)
            self._pictures.update(zip(missing, pictures, strict=True))
        return Frames(self._pictures[index].copy() for index in indices)


@TRANSFORMS.register_module()
class OpenVideo(BaseTransform):
    """Open a video file, without reading it into RAM.

    Each worker keeps its last videos open. Needs ``filename``; sets
    ``video_reader``, ``total_frames``, ``fps`` and ``frame_times``, the seconds at
    which frames begin, all from the video itself, and ``start_index`` 0. Raises as
    :func:`stmixer_mm.datasets.videos.open_video`.

    Args:
        keep_frames: Keep the frames of clips in RAM, in each worker: for datasets of a
            few short videos, whose decoding would otherwise take longer than a step.
    """

    def __init__(self, *, keep_frames: bool = False) -> None:
        self.keep_frames = keep_frames
        self._readers: dict[str, _KeptFrames] = {}

    def transform(self, results: dict) -> dict:
        filename = results['filename']
        if not self.keep_frames:
            reader = shared_video(filename)
        elif filename in self._readers:
            reader = self._readers[filename]
        else:
            reader = self._readers[filename] = _KeptFrames(filename)
        return {**results, 'video_reader': reader, 'start_index': 0, **reader.clock}


@TRANSFORMS.register_module()
class SampleKeyframeClip(BaseTransform):
    """Choose the frames of the clip around a keyframe, or of one that ends before it.

    Needs ``frame_index``, the keyframe counted from 0, or else ``timestamp`` and
    ``fps`` (``timestamp_start`` is 0 if absent), which give the nearest frame, by
    ``frame_times`` if present. Also needs ``total_frames`` (of :class:`OpenVideo`), or
    ``frame_dir`` and ``filename_tmpl``, whose frames are then counted. Sets
    ``frame_inds`` (clip_len,), counted from 0 in videos and from ``start_index`` in
    frame folders; the keyframe is entry clip_len // 2, or after the clip with
    ``ahead_s``.

    Args:
        clip_len: Frames of a clip.
        frame_interval: Frames of the video from one of them to the next.
        ahead_s: The clip's last frame is the one nearest to this many seconds before
            the keyframe, whose persons are to be predicted; with 0 it is the keyframe.
            None: the clip is around the keyframe.
        allow_short: Instead of raising ``UserError``, repeat the first and last frame
            of a video shorter than a clip, and end the clip at the first frame where
            none is ``ahead_s`` before the keyframe.
    """

    def __init__(
        self,
        clip_len: int,
        frame_interval: int,
        *,
        ahead_s: float | None = None,
        allow_short: bool = False,
    ) -> None:
        self.clip_len = clip_len
        self.frame_interval = frame_interval
        self.ahead_s = ahead_s
        self.allow_short = allow_short

    @property
    def num_sampled(self) -> int:
        """Frames to read: those of the clip, and of a subclass maybe more after it."""
        return self.clip_len

    @property
    def place(self) -> int:
        """Entry of the frame that a clip is cut at: the keyframe, or the last one."""
        return self.clip_len // 2 if self.ahead_s is None else self.clip_len - 1

    def transform(self, results: dict) -> dict:
        source = results.get('filename') or results.get('frame_dir')
        total_frames = frames_of(results)
        span = (self.clip_len - 1) * self.frame_interval + 1
        if total_frames < span and not self.allow_short:
            raise UserError(
                f'{source} has {total_frames} frames, fewer than the {span} that a clip '
                'spans; use a longer video or a smaller clip, or set allow_short=True '
                'in SampleKeyframeClip.'
            )
        try:
            frame = self._find_frame(results, total_frames)
        except UserError as error:
            if self.ahead_s:
                source = f'{source}, ahead_s={self.ahead_s:g}'
            raise UserError(f'{source}: {error}.') from None
        results['frame_inds'] = results.get('start_index', 0) + clip_indices(
            frame,
            clip_len=self.num_sampled,
            frame_interval=self.frame_interval,
            total_frames=total_frames,
            place=self.place,
        )
        results['clip_len'] = self.num_sampled
        results['frame_interval'] = self.frame_interval
        results['num_clips'] = 1
        # The host's crops read and update it.
        results['crop_quadruple'] = np.array([0, 0, 1, 1], dtype=np.float32)
        return results

    def _find_frame(self, results: dict, total_frames: int) -> int:
        """Index, from 0, of the frame that the clip is cut at."""
        index, ahead_s = results.get('frame_index'), self.ahead_s or 0
        if index is not None and not 0 <= index < total_frames:
            raise UserError(
                f'frame {index + 1}, counted from 1, is not one of its {total_frames} '
                'frames; extract or encode it again at the rate of the annotation'
            )
        if index is not None and not ahead_s:
            return index
        clock = clock_of(results, total_frames)
        start, times, fps = (
            clock[key] for key in ('timestamp_start', 'frame_times', 'fps')
        )
        if index is None:
            seconds = results['timestamp'] - ahead_s
        else:
            seconds = start + (index / fps if times is None else times[index]) - ahead_s
        if ahead_s and (self.allow_short or seconds > start - 0.5 / fps):
            seconds = max(seconds, start)
        return keyframe_index(seconds, **clock)


def frames_of(results: dict) -> int:
    """Number of frames of a sample's video."""
    if results.get('total_frames') is not None:
        return results['total_frames']
    start_index = results.get('start_index', 0)
    return count_frames(results['frame_dir'], results['filename_tmpl'], start_index)


def clock_of(results: dict, total_frames: int) -> dict:
    """Arguments of :func:`.keyframe_index` for a sample."""
    return dict(
        fps=results['fps'],
        total_frames=total_frames,
        timestamp_start=results.get('timestamp_start', 0),
        frame_times=results.get('frame_times'),
    )


@TRANSFORMS.register_module()
class DecodeFrames(DecordDecode):
    """Decode the frames of a clip, each once.

    Needs ``video_reader`` and ``frame_inds`` (clip_len,). Sets ``imgs``, clip_len RGB
    arrays (h, w, 3) uint8 that share no memory; ``original_shape`` and ``img_shape``
    (h, w); and scales ``gt_bboxes`` from [0, 1] to pixels. Raises ``UserError`` when a
    frame cannot be decoded.
    """

    def _decord_load_frames(self, container, frame_inds) -> list[np.ndarray]:
        unique, inverse = np.unique(frame_inds, return_inverse=True)
        frames = container.get_batch(unique).asnumpy()
        return [frames[index].copy() for index in inverse]


@TRANSFORMS.register_module()
class DecodeFrameFiles(RawFrameDecode):
    """The host's ``RawFrameDecode``, which names the folder whose frame is unreadable.

    Raises:
        UserError: a file is missing, or is no picture.
    """

    def transform(self, results: dict) -> dict:
        remedy = 'extract its video again, or correct filename_tmpl, start_index or fps'
        frames = f'{results["frame_dir"]}: a frame of {results["frame_inds"].tolist()}'
        with blame(f'{frames} cannot be read', remedy):
            return super().transform(results)


@TRANSFORMS.register_module()
class RandomShortSideResize(BaseTransform):
    """Resize to a random short side, with a bound on the long one.

    The host's ``RandomRescale`` has no such bound. Keeps the aspect ratio; scales
    ``imgs``, ``img_shape`` and ``gt_bboxes`` through the host's ``Resize``.

    Args:
        short_range: Smallest and largest short side in pixels, both included.
        max_long: Largest long side in pixels; the short side then gets smaller.
    """

    def __init__(
        self, short_range: tuple[int, int] = (256, 320), *, max_long: int = 1333
    ) -> None:
        self.short_range = short_range
        self.max_long = max_long

    def transform(self, results: dict) -> dict:
        low, high = self.short_range
        short = int(np.random.randint(low, high + 1))
        return Resize(scale=(self.max_long, short)).transform(results)


@TRANSFORMS.register_module()
class CropEmptyPart(BaseTransform):
    """Make some clips ones without persons, so that a model learns what is none.

    Crops the largest of the four parts beside all boxes; where no side of any part
    reaches ``min_share`` of the frame's, all frames become black. Needs ``imgs``,
    ``img_shape`` and ``gt_bboxes`` (k, 4) in pixels; removes the persons.

    Args:
        prob: Share of the clips.
        min_share: Smallest width and height of a part, of those of the frame.
    """

    def __init__(self, prob: float = 0.1, *, min_share: float = 0.25) -> None:
        self.prob = prob
        self.min_share = min_share

    def transform(self, results: dict) -> dict:
        bboxes = results['gt_bboxes']
        if np.random.rand() >= self.prob or not len(bboxes):
            return results
        height, width = results['img_shape']
        x1, y1 = np.floor(bboxes[:, :2].min(axis=0)).astype(int)
        x2, y2 = np.ceil(bboxes[:, 2:].max(axis=0)).astype(int)
        parts = [
            (slice(0, height), slice(0, max(x1, 0))),
            (slice(0, height), slice(x2, width)),
            (slice(0, max(y1, 0)), slice(0, width)),
            (slice(y2, height), slice(0, width)),
        ]
        rows, columns = max(parts, key=lambda part: _size(part[0]) * _size(part[1]))
        share = min(_size(rows) / height, _size(columns) / width)
        if share >= self.min_share:
            results['imgs'] = [image[rows, columns] for image in results['imgs']]
        else:
            results['imgs'] = [np.zeros_like(image) for image in results['imgs']]
        results['img_shape'] = results['imgs'][0].shape[:2]
        return keep_persons(results, np.zeros(len(bboxes), bool))


def _size(part: slice) -> int:
    return max(part.stop - part.start, 0)


def keep_persons(results: dict, mask: np.ndarray) -> dict:
    """A sample with some of its persons, (k,) bool."""
    for key in results:
        if key == 'entity_ids' or key.startswith('gt_'):
            results[key] = results[key][mask]
    return results


@TRANSFORMS.register_module()
class FilterBoxes(BaseTransform):
    """Drop boxes that a crop has left too small, with their labels.

    The host's crops keep boxes that they clip to nothing. Needs ``gt_bboxes`` (k, 4)
    in pixels and ``gt_labels`` (k, ...); what else there is of persons follows. With
    ``gt_bboxes`` (k, K, 4) of clips, a person is absent from frames where its box is
    dropped, because nothing of it can be seen there (in a keyframe it is background,
    too). Persons without any box left are dropped.

    Args:
        min_size: Smallest width and height in pixels that a box may have.
    """

    def __init__(self, min_size: float = 1) -> None:
        self.min_size = min_size

    def transform(self, results: dict) -> dict:
        bboxes, states = results['gt_bboxes'], results.get('gt_states')
        sizes = bboxes[..., 2:] - bboxes[..., :2]
        keep = (sizes >= self.min_size).all(axis=-1)
        if states is not None:
            states[(states == PRESENT) & ~keep] = ABSENT
            keep = (states == PRESENT).any(axis=1)
        return keep_persons(results, keep)
