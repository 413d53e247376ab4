"""Feature maps of what comes next, warped from those that are there.

Shapes: B clips, C channels, T frames of the feature maps, k frames ahead, L levels.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from mmengine.model import ModuleList, constant_init
from torch import Tensor, nn

from stmixer_mm.errors import UserError
from stmixer_mm.models.necks.levels import as_levels, check_channels
from stmixer_mm.models.parts import LearningNeck
from stmixer_mm.models.precision import full_precision
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import StageOutput


def warp(feat: Tensor, flow: Tensor) -> Tensor:
    """(B, C, H, W) read where the flow (B, 2, H, W) points to, x and y in cells.

    Between cells it is bilinear, beyond the edges it repeats them.
    """
    height, width = feat.shape[-2:]
    flow = full_precision(flow)
    x = torch.arange(width, device=flow.device) + flow[:, 0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    grid = torch.stack(((2 * x + 1) / width, (2 * y + 1) / height), dim=-1) - 1
    warped = F.grid_sample(
        feat.to(grid.dtype), grid, padding_mode='border', align_corners=False
    )
    return warped.to(feat.dtype)


class WarpStep(nn.Sequential):
    """The next feature map of a level from its last two.

    next = gate * warp(last, flow) + (1 - gate) * (last + change): what moves, and what
    appears. Flow and change are zero at first, so the last feature map is repeated.
    """

    def __init__(self, channels: int) -> None:
        hidden = max(channels // 4, 1)
        super().__init__(
            nn.Conv2d(2 * channels, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, 2 + 1 + channels, 3, padding=1),
        )

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        """Two maps (B, C, H, W) -> (B, C, H, W)"""
        found = super().forward(torch.cat((before, last), dim=1))
        flow, gate, change = found.split((2, 1, last.size(1)), dim=1)
        gate = gate.sigmoid()
        return gate * warp(last, flow) + (1 - gate) * (last + change)


@MODELS.register_module()
class WarpForecast(LearningNeck):
    """Extend levels of T frames by the k that come next.

    A :class:`WarpStep` for each level makes each of them from the two before it. The
    decoder behind it has ``num_frames`` = T + k.

    It learns from the loss of the detector and, where clips have further frames
    (``num_future`` of :class:`.SampleClipAndFuture`), from what backbone and necks make
    of these. Nothing else reads them, and tests go without.

    Args:
        in_channels: Channels of the levels, finest first.
        num_ahead: k.
        clip_len: Frames of a clip; what comes behind them is the future.
        loss_weight: Of the squared difference from the true feature maps, as a share of
            their variance in a clip.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.

    Raises:
        UserError: k does not match a clip's further frames.
    """

    output_type = StageOutput  # persons of keyframes; tubelets are where they are seen

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        num_ahead: int,
        clip_len: int,
        loss_weight: float = 1.0,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.in_channels = tuple(in_channels)
        self.num_ahead = num_ahead
        self.clip_len = clip_len
        self.loss_weight = loss_weight
        self.steps = ModuleList(map(WarpStep, in_channels))

    def init_weights(self) -> None:
        for step in self.steps:
            constant_init(step[-1], 0)
        super().init_weights()

    def forward(self, feats: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """(B, in_channels[l], T, H_l, W_l) -> (B, in_channels[l], T + k, H_l, W_l)"""
        levels = as_levels(feats)
        check_channels(levels, self)
        return [
            self._extend(level, step)
            for level, step in zip(levels, self.steps, strict=True)
        ]

    def _extend(self, level: Tensor, step: WarpStep) -> Tensor:
        maps = list(level.unbind(dim=2))
        for _ in range(self.num_ahead):
            maps.append(step(maps[-2] if maps[1:] else maps[-1], maps[-1]))
        return torch.stack(maps, dim=2)

    @torch.no_grad()
    def see_future(
        self, clips: Tensor, extract: Callable[[Tensor], Tensor | Sequence[Tensor]]
    ) -> tuple[list[Tensor], Tensor]:
        """The next k frames of L levels (B, C, k, H_l, W_l), and which are true (B, k).

        Each is from a clip of ``clip_len`` frames that ends later. Frames that equal
        the one before, as beyond the end of a video, show no later time.

        Args:
            clips: (B, 3, clip_len + further frames, H, W).
            extract: Clips to the levels that this neck extends.
        """
        future = clips.size(2) - self.clip_len
        windows: list[list[Tensor]] = []
        shifts = [*range(0, future, self.clip_len), future]
        for before, shift in pairwise(shifts):
            levels = as_levels(extract(clips[:, :, shift : shift + self.clip_len]))
            frames = levels[0].size(2)
            new = (shift - before) * frames // self.clip_len
            windows.append([level[:, :, frames - new :] for level in levels])
        if future * frames != self.num_ahead * self.clip_len:
            raise UserError(
                f'The num_ahead={self.num_ahead} feature maps of WarpForecast stand for '
                f'{self.num_ahead * self.clip_len / frames:g} frames, but {future} '
                'follow the clip; correct num_future of SampleClipAndFuture.'
            )
        changes = clips[:, :, -future - 1 :].diff(dim=2)
        is_new = changes.flatten(3).any(dim=3).any(dim=1)
        is_true = is_new.unflatten(1, (self.num_ahead, -1)).all(dim=2)
        future_levels = zip(*windows, strict=True)
        return [torch.cat(level, dim=2) for level in future_levels], is_true

    def loss(
        self,
        feats: Sequence[Tensor],
        inputs: Tensor,
        extract: Callable[[Tensor], Tensor | Sequence[Tensor]],
    ) -> dict[str, Tensor]:
        if inputs.size(2) <= self.clip_len:
            return {}
        return self.compare(feats, *self.see_future(inputs, extract))

    def compare(
        self, extended: Sequence[Tensor], future: Sequence[Tensor], is_true: Tensor
    ) -> dict[str, Tensor]:
        """
        Args:
            extended: From :meth:`forward`.
            future: From :meth:`see_future`, as ``is_true``.
        """
        shares = []
        for level, truth in zip(extended, map(full_precision, future), strict=True):
            errors = full_precision(level[:, :, -self.num_ahead :]) - truth
            variance = truth.flatten(1).var(dim=1, correction=0).clamp(min=1e-6)
            shares.append(errors.square().mean(dim=(1, 3, 4)) / variance[:, None])
        share = torch.stack(shares).mean(dim=0)
        mean = (share * is_true).sum() / is_true.sum().clamp(min=1)
        return dict(loss_forecast=self.loss_weight * mean)
