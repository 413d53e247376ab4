"""A backbone for images whose later stages see something of the frame before.

Shapes: N frames, B clips, T frames of a clip, C channels, h x w cells.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stmixer_mm.errors import UserError
from stmixer_mm.models.backbones.framewise import ImageBackbone
from stmixer_mm.models.folding import fold_time, unfold_time
from stmixer_mm.registry import MODELS


def shift_channels(frames: Tensor, previous_frames: Tensor, share: float) -> Tensor:
    """Maps whose first channels are those of the frame before.

    Args:
        frames, previous_frames: Of the same shape, channels second.
        share: Of the channels.
    """
    count = int(frames.size(1) * share)
    return torch.cat((previous_frames[:, :count], frames[:, count:]), dim=1)


def append_differences(levels: list[Tensor], previous_frames: Tensor) -> list[Tensor]:
    """Frames whose further channels are how they differ from the frames before."""
    return [torch.cat((levels[-1], levels[-1] - previous_frames), dim=1)]


def keep_submodules(module: nn.Module, names: Sequence[str], prefix: str = '') -> None:
    """Remove all submodules but those of these dotted names."""
    for child, submodule in [*module.named_children()]:
        name = prefix + child
        if name in names:
            continue
        if any(dotted_name.startswith(f'{name}.') for dotted_name in names):
            keep_submodules(submodule, names, f'{name}.')
        else:
            delattr(module, child)


@MODELS.register_module()
class CausalShiftBackbone(ImageBackbone):
    """Run a 2-D backbone on each frame, with shifts in time that only look back.

    Lin et al., "TSM: Temporal Shift Module for Efficient Video Understanding", ICCV
    2019, section 4.2. Before the first frame of a clip there are zeros. A frame's maps
    depend on it and on as many frames before it as there are shifts, so a stream needs
    no frame twice, except the first few of each clip.

    Args:
        stages: Names of the submodules that the backbone for images runs one after the
            other, in groups. Its other submodules are removed.
        shifts: Groups that see the frame before; not the first.
        out_indices: Groups that yield a level, rising, with the last; None: all.
        share: Of the channels that come from there.
        with_differences: Run on each frame's difference from the frame before, too (Wang
            et al., "Temporal Segment Networks", ECCV 2016, section 3.2): levels have
            twice the channels, the frame's first.
        **kwargs: See :class:`.ImageBackbone`. Checkpoints of the backbone for images fit.
    """

    def __init__(
        self,
        *,
        stages: Sequence[Sequence[str]],
        shifts: Sequence[int],
        out_indices: Sequence[int] | None = None,
        share: float = 0.125,
        with_differences: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.stages = [[*names] for names in stages]
        groups = range(len(stages))
        self.out_indices = [*(groups if out_indices is None else out_indices)]
        self.shifts = [*shifts]
        self.share = share
        self.with_differences = with_differences
        if not {*shifts} <= {*groups[1:]} or self.out_indices[-1:] != [groups[-1]]:
            raise UserError(
                f'Of the {len(stages)} groups of stages, counted from 0, the first sees '
                'each frame alone and the last yields a level, which does not go with '
                f'shifts={self.shifts} and out_indices={self.out_indices}.'
            )
        for name in chain(*stages):
            self.backbone.get_submodule(name)
        keep_submodules(self.backbone, [*chain(*stages)])

    def forward(self, clips: Tensor) -> list[Tensor]:
        """(B, 3, T, H, W) -> levels (B, C, T, h, w)"""
        levels = [clips]
        for run, looks_back in self.frame_steps():
            inputs = [levels]
            if looks_back:
                inputs.append(F.pad(levels[-1], (0, 0, 0, 0, 1, -1)))
            levels = run(*inputs)
        return levels

    def frame_steps(self) -> list[tuple[Callable[..., list[Tensor]], bool]]:
        """The stages as functions of levels (N, C, T, h, w), to which they add one.

        Each with whether it has a second argument, the last level of the frames before.
        """
        stages = [
            (partial(self._run, index), index in self.shifts)
            for index in range(len(self.stages))
        ]
        if not self.with_differences:
            return stages
        # Frames are levels by themselves first, so that a stream keeps them.
        return [(list, False), (append_differences, True), *stages]

    def _run(
        self, index: int, levels: list[Tensor], previous_frames: Tensor | None = None
    ) -> list[Tensor]:
        feat = self._separate(levels[-1])
        if previous_frames is not None:
            feat = shift_channels(feat, self._separate(previous_frames), self.share)
        clips, feat = feat.size(0), fold_time(feat)
        for name in self.stages[index]:
            feat = self.backbone.get_submodule(name)(feat)
        outputs = levels if index - 1 in self.out_indices else levels[:-1]
        return [*outputs, self._join(unfold_time(feat, clips))]

    def _separate(self, level: Tensor) -> Tensor:
        """Frames and differences, side by side as channels, as clips of their own."""
        return torch.cat(level.chunk(2, dim=1)) if self.with_differences else level

    def _join(self, level: Tensor) -> Tensor:
        return torch.cat(level.chunk(2), dim=1) if self.with_differences else level
