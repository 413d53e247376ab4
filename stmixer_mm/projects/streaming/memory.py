"""Feature maps of the last frames of a stream, which overlapping clips share.

Shapes: N new frames, B clips, T frames of a clip, L levels, C channels, h x w cells.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from typing import NamedTuple

import numpy as np
import torch
from mmaction.datasets.transforms import (
    CenterCrop,
    FormatShape,
    PackActionInputs,
    Resize,
)
from mmaction.structures import ActionDataSample
from torch import Tensor, nn

from stmixer_mm.apis.cut import ClipLoader
from stmixer_mm.compat import exact_convolutions
from stmixer_mm.datasets.clips import Clip
from stmixer_mm.datasets.transforms import DecodeFrames, SampleKeyframeClip
from stmixer_mm.errors import UserError
from stmixer_mm.models.data_preprocessor import single_clips
from stmixer_mm.models.necks.levels import as_levels
from stmixer_mm.models.parts import Batch, Samples
from stmixer_mm.projects.streaming.path import Step, cut_path
from stmixer_mm.registry import Reuse

Numbers = tuple[int, ...]  # of frames, rising
Key = tuple[int, ...]  # the view, then numbers of frames
# Transforms that treat frames one by one, and leave nothing to chance.
FRAMEWISE = (SampleKeyframeClip, DecodeFrames, Resize, CenterCrop, FormatShape)
FRAMEWISE += (PackActionInputs,)


class NumberedClip(NamedTuple):
    """A clip, of which only the frames are loaded that no clip before had."""

    view: int  # of the stream's frames: clips share those of one view
    numbers: Numbers  # of its T frames in the stream
    new: Numbers  # of the frames that are loaded
    frames: Tensor  # (3, len(new), h, w) uint8
    sample: ActionDataSample


class FrameMemory:
    """Predicts the clips of one stream, whose frames go through the backbone once.

    What a step makes of a frame is kept under the numbers of the frames that it saw, so
    it is used again only where the clip by itself would give the same. Frames that are
    older than the newest clip are forgotten. Clips may be of several views of the
    stream (``sample['view']``); then each batch has clips of all.

    Args:
        model: A detector that predicts from feature maps; it stays as it is.
        loader: Makes the clips.

    Raises:
        UserError: the model or the pipeline needs whole clips.
    """

    def __init__(self, model: nn.Module, loader: ClipLoader) -> None:
        if not hasattr(model, 'predict_batch'):
            raise UserError(
                f'{type(model).__name__} cannot stream: it needs the pixels of whole '
                'clips; give the checkpoint of an STMixer.'
            )
        for transform in loader.transforms:
            if not isinstance(transform, FRAMEWISE):
                names = [transform_type.__name__ for transform_type in FRAMEWISE]
                raise UserError(
                    f'{type(transform).__name__} of the test pipeline may see several '
                    'frames of a clip at once, so that frames cannot be used again; '
                    f'take {", ".join(names)} alone.'
                )
        self._steps, self._parts = cut_path(model.path)
        # With the model's hooks: autocast, say.
        self._model = copy(model)
        self._model.forward = self._forward
        # Numbers of frames that later clips may share, by view.
        self._loaded: dict[int, set[int]] = defaultdict(set)
        # Outputs of each step, by the frames that it saw.
        self._outputs: list[dict[Key, list[Tensor]]] = [{} for _ in self._steps]

    # Loading

    def choose(self, clip: Clip, frame_inds: np.ndarray) -> np.ndarray:
        """Frames of a clip, counted from its first, that have to be loaded."""
        first, self._view = clip.frames.start, clip.sample.get('view', 0)
        self._numbers = tuple((first + frame_inds).tolist())
        missing = sorted({*self._numbers} - self._loaded[self._view])
        self._new = tuple(missing or self._numbers[-1:])
        return np.array(self._new) - first

    def take(self, inputs: dict) -> NumberedClip:
        """A clip, from what the pipeline made of the chosen frames."""
        view, numbers = self._view, self._numbers
        loaded = self._loaded[view].union(self._new)
        self._loaded[view] = {number for number in loaded if number >= numbers[0]}
        (frames,) = single_clips([inputs['inputs']])
        return NumberedClip(view, numbers, self._new, frames, inputs['data_samples'])

    # Prediction

    def test_step(self, clips: Sequence[NumberedClip]) -> Samples:
        """The samples of clips, in order of time, with their predictions."""
        self._clips = clips
        frames = [frame for clip in clips for frame in clip.frames.split(1, dim=1)]
        samples = [clip.sample for clip in clips for _ in clip.new]
        return self._model.test_step(dict(inputs=frames, data_samples=samples))

    def _forward(self, inputs: Tensor, data_samples: Samples, mode: str) -> Samples:
        """Predict from new frames (N, 3, 1, H, W) and those that are kept."""
        samples = [clip.sample for clip in self._clips]
        num_frames = len(self._clips[0].numbers)
        pad_shape = tuple(inputs.shape[-2:])
        for sample in samples:
            meta = dict(img_shape=sample.img_shape, pad_shape=pad_shape)
            sample.set_metainfo(meta | dict(clip_len=num_frames))
        with exact_convolutions(inputs.device.type):
            feats = self.extend(inputs)
            for part in self._parts:
                feats = part(feats)
        batch = Batch.of(as_levels(feats), inputs, samples)
        return self._model.predict_batch(batch)

    def extend(self, inputs: Tensor) -> list[Tensor]:
        """New frames (N, 3, 1, H, W) to the clips' levels (B, C, T, h, w)."""
        new = [(clip.view, number) for clip in self._clips for number in clip.new]
        levels = {key: [frame] for key, frame in zip(new, inputs.split(1), strict=True)}
        depth = 0
        for step, outputs in zip(self._steps, self._outputs, strict=True):
            input_depth, depth = depth, depth + step.looks_back
            missing = {}
            for clip in self._clips:
                for place in range(len(clip.numbers)):
                    key = _frames_behind(clip, place, depth)
                    if key not in outputs:
                        frame = _frames_behind(clip, place, input_depth)
                        previous = _frames_behind(clip, place - 1, input_depth)
                        missing[key] = frame, previous
            if missing:
                outputs.update(_take(step, missing, levels))
            levels = outputs
        clips = [
            [
                levels[_frames_behind(clip, place, depth)]
                for place in range(len(clip.numbers))
            ]
            for clip in self._clips
        ]
        oldest = {clip.view: clip.numbers[0] for clip in self._clips}
        for outputs in self._outputs:
            for key in [key for key in outputs if key[1] < oldest[key[0]]]:
                del outputs[key]
        return _join([_join(frames, dim=2) for frames in clips])


def start_stream(
    model: nn.Module, loader: ClipLoader, reuse: Reuse = 'always'
) -> FrameMemory | None:
    """The memory of a new stream; None if frames are not to be used again, or cannot.

    Args:
        model: From :func:`.init_detector`.
        loader: Of its config.
        reuse: 'auto', where the model can; 'always', or an error; 'never'.
    """
    with suppress(UserError if reuse == 'auto' else ()):
        return None if reuse == 'never' else FrameMemory(model, loader)
    return None


def _frames_behind(clip: NumberedClip, place: int, depth: int) -> Key | None:
    """A frame of a clip and up to ``depth`` before it; None before the first."""
    frames = clip.numbers[max(place - depth, 0) : place + 1]
    return (clip.view, *frames) if frames else None


def _take(
    step: Step,
    missing: dict[Key, tuple[Key, Key | None]],
    levels: dict[Key, list[Tensor]],
) -> dict[Key, list[Tensor]]:
    """Take a step for several frames at once.

    Args:
        step: To take.
        missing: Keys of the outputs, with those in ``levels`` of the frame and of the
            one before it.
        levels: Levels (1, C, 1, h, w) that it begins with.
    """
    keys, previous_keys = zip(*missing.values(), strict=True)
    inputs = [_join([levels[key] for key in keys])]
    if step.looks_back:
        nothing = torch.zeros_like(inputs[0][-1][:1])
        previous = [levels[key][-1] if key else nothing for key in previous_keys]
        inputs.append(torch.cat(previous))
    outs = [out.split(1) for out in step.run(*inputs)]
    return dict(zip(missing, map(list, zip(*outs, strict=True)), strict=True))


def _join(parts: Sequence[list[Tensor]], dim: int = 0) -> list[Tensor]:
    """Levels of several frames or clips, joined."""
    return [torch.cat(level, dim) for level in zip(*parts, strict=True)]
