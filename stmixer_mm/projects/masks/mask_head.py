"""Masks of persons from their queries, as DETR's panoptic head draws them.

Shapes: B clips, C channels, L levels, n queries of any clips, k persons of a clip.
"""

from collections.abc import Sequence
from itertools import zip_longest
from math import gcd
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmengine.dist import all_reduce, get_world_size
from mmengine.model import ModuleList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from stmixer_mm.errors import UserError
from stmixer_mm.models.data_preprocessor import move_together
from stmixer_mm.models.decoder.initial_boxes import FrameShapes
from stmixer_mm.models.finite import sample_name
from stmixer_mm.models.parts import Batch, QueryPart
from stmixer_mm.models.precision import full_precision
from stmixer_mm.projects.common.feats import keyframes
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import DecoderOutput, StageOutput

WIDTH_DIVISORS = 2, 4, 8, 16  # of C, one for each convolution
ABSENT_LOGIT = -1e4  # its sigmoid is 0


class MaskQueries(NamedTuple):
    """The n queries, of any clips, to draw."""

    vectors: Tensor  # (n, C)
    bboxes: Tensor  # (n, 4): pixel xyxy
    clips: Tensor  # (n,) long: which of the B clips each is from


@MODELS.register_module()
class QueryMaskHead(QueryPart):
    """Attention of each query over the keyframe's coarsest level, upsampled in steps.

    Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020, section
    4.4. The keyframe is frame T // 2: a mean over time would smear the persons, who
    move. The attention is biased by how far a cell lies outside of the query's box,
    which our decoders keep beside the query and not in it.

    Args:
        loss_mask: Loss of logits (n, pixels) on 0 and 1, e.g. ``mmdet.FocalLoss``; here
            a mean over a mask's pixels, summed over masks, divided by their number.
        loss_dice: Loss of the same with one value for each mask, e.g.
            ``mmdet.DiceLoss``.
        num_levels: How many levels are read, the finest ones, 1 to 5.
        num_heads: Heads of the attention, one attention map each.
        **kwargs: See :class:`.QueryPart`; ``embed_dims`` is a multiple of 16 and of
            ``num_heads``.
    """

    chunk_size = 16  # queries that are drawn at once in prediction, which bounds RAM
    output_type = StageOutput  # persons of keyframes, not tubelets

    def __init__(
        self,
        *,
        loss_mask: dict,
        loss_dice: dict,
        num_levels: int = 4,
        num_heads: int = 8,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        embed_dims = self.embed_dims
        self.num_heads = num_heads
        self.num_levels = num_levels
        self.query = nn.Linear(embed_dims, embed_dims)
        self.key = nn.Conv2d(embed_dims, embed_dims, 1)
        self.outside_tau = nn.Parameter(torch.zeros(num_heads))
        widths = [embed_dims // divisor for divisor in WIDTH_DIVISORS]
        self.convs = ModuleList(
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 3, padding=1),
                nn.GroupNorm(gcd(8, out_channels), out_channels),
                nn.ReLU(inplace=True),
            )
            for in_channels, out_channels in zip(
                [embed_dims + num_heads, *widths], widths, strict=False
            )
        )
        self.adapters = ModuleList(
            nn.Conv2d(embed_dims, out_channels, 1)
            for out_channels in widths[: num_levels - 1]
        )
        self.mask = nn.Conv2d(widths[-1], 1, 3, padding=1)
        self.loss_mask = MODELS.build(loss_mask)
        self.loss_dice = MODELS.build(loss_dice)

    def init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.query.weight)
        nn.init.zeros_(self.query.bias)
        nn.init.uniform_(self.outside_tau, 0, 4)
        super().init_weights()

    def check_feats(self, feats: Sequence[Tensor]) -> None:
        if len(feats) < self.num_levels:
            raise UserError(
                f'The neck yields {len(feats)} levels but the mask head has num_levels='
                f'{self.num_levels}; set model.mask_head.num_levels={len(feats)}.'
            )

    def forward(
        self, feats: Sequence[Tensor], queries: MaskQueries, frames: FrameShapes
    ) -> Tensor:
        """
        Args:
            feats: Levels (B, C, T, H_l, W_l), finest first.
            queries: n of them.
            frames: Sizes of the frames.

        Returns:
            Logits of the finest level's cells, (n, H_0, W_0).
        """
        return self.draw(*self.read(feats), queries, frames)

    def read(self, feats: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The keyframe's coarsest level, and the next finer ones, adapted."""
        *finer, coarsest = keyframes(feats[: self.num_levels])
        levels = zip(self.adapters, reversed(finer), strict=True)
        return coarsest, [adapter(level) for adapter, level in levels]

    def draw(
        self,
        coarsest: Tensor,
        finer: Sequence[Tensor],
        queries: MaskQueries,
        frames: FrameShapes,
    ) -> Tensor:
        """:meth:`forward`, from what :meth:`read` returned."""
        attention = self.attend(coarsest, queries, frames)
        drawn = torch.cat((coarsest[queries.clips], attention), dim=1)
        for conv, level in zip_longest(self.convs, finer):
            drawn = conv(drawn)
            if level is not None:
                drawn = F.interpolate(drawn, level.shape[-2:]) + level[queries.clips]
        return self.mask(drawn).squeeze(1)

    def attend(
        self, level: Tensor, queries: MaskQueries, frames: FrameShapes
    ) -> Tensor:
        """Attention over a level (B, C, h, w), in units of its mean.

        The softmax runs over heads and cells together, without the cells of padding.

        Returns:
            (n, num_heads, h, w)
        """
        keys = self.key(level).unflatten(1, (self.num_heads, -1))[queries.clips]
        vectors = self.query(queries.vectors).unflatten(1, (self.num_heads, -1))
        vectors = vectors * vectors.size(-1) ** -0.5
        logits = full_precision(torch.einsum('nmc,nmchw->nmhw', vectors, keys))
        corners = cell_positions(level, frames.pad_shape)
        inside = corners < frames.img_shapes.flip(-1)[queries.clips, None, None]
        inside = inside.all(dim=-1)[:, None]
        centres = cell_positions(level, frames.pad_shape, within=0.5)
        outside = outside_distances(centres, queries.bboxes).unsqueeze(1)
        bias = self.outside_tau.view(-1, 1, 1) * outside
        logits = (logits - bias).masked_fill(~inside, float('-inf'))
        attention = logits.flatten(1).softmax(dim=-1).view_as(logits)
        cells = inside.sum(dim=(1, 2, 3), keepdim=True)
        return (attention * (self.num_heads * cells)).to(level)

    def loss(
        self, batch: Batch, outputs: DecoderOutput, persons: Tensor
    ) -> dict[str, Tensor]:
        """Weighted loss terms of the queries that stand for persons.

        A mask without a pixel counts nowhere: it is unknown, or a crop cut it away. The
        truth is ``masks`` (k, h, w), of the frames without padding.

        Raises:
            UserError: A sample lacks masks.
        """
        feats, data_samples, frames = batch
        clips, rows, truth, inside = take_masks(data_samples, persons.numpy(), frames)
        vectors, bboxes = outputs.queries.spatial, outputs.stages[-1].bboxes
        queries = MaskQueries(vectors[clips, rows], bboxes[clips, rows].detach(), clips)
        logits = full_precision(self(feats, queries, frames))
        logits = resize(logits, frames.pad_shape).flatten(1)
        logits = logits.masked_fill(~inside, ABSENT_LOGIT)
        valid_mask = truth.any(dim=1).to(logits)
        truth, number = truth.to(logits), valid_mask.sum()
        all_reduce(number, op='mean')
        number = number.clamp(min=1 / get_world_size())
        return dict(
            loss_mask=self.loss_mask(
                logits,
                truth,
                weight=inside * (valid_mask / inside.sum(dim=1))[:, None],
                avg_factor=number,
            ),
            loss_dice=self.loss_dice(
                logits, truth, weight=valid_mask, avg_factor=number
            ),
        )

    def finish(
        self, batch: Batch, outputs: DecoderOutput, predictions: list[InstanceData]
    ) -> list[InstanceData]:
        """Predictions with ``masks`` (n, h, w) bool.

        They have the size of the frame before it was resized (``ori_shape``), or that
        of the clip where this is unknown.
        """
        clips = np.repeat(np.arange(len(predictions)), [*map(len, predictions)])
        query_clips = torch.from_numpy(clips).to(batch.feats[0].device)
        rows, bboxes = (
            torch.cat([instances[k] for instances in predictions])
            for k in ('queries', 'bboxes')
        )
        scales = batch.frames.img_shapes.flip(-1).repeat(1, 2)[query_clips]
        vectors = outputs.queries.spatial[query_clips, rows].float()
        queries = MaskQueries(vectors, bboxes * scales, query_clips)
        levels = self.read(batch.feats)
        drawn = [[] for _ in predictions]
        for first in range(0, len(clips), self.chunk_size):
            chunk = slice(first, first + self.chunk_size)
            chunk_queries = MaskQueries(*(values[chunk] for values in queries))
            logits = full_precision(self.draw(*levels, chunk_queries, batch.frames))
            logits = resize(logits, batch.frames.pad_shape)
            present, counts = np.unique(clips[chunk], return_counts=True)
            for clip, clip_logits in zip(
                present, logits.split(counts.tolist()), strict=True
            ):
                height, width = batch.data_samples[clip].metainfo['img_shape']
                size = frame_size(batch.data_samples[clip])
                drawn[clip].append(resize(clip_logits[:, :height, :width], size) > 0)
        for instances, masks, sample in zip(
            predictions, drawn, batch.data_samples, strict=True
        ):
            nothing = bboxes.new_zeros((0, *frame_size(sample)), dtype=torch.bool)
            instances.masks = torch.cat([nothing, *masks])
        return predictions


def frame_size(sample: ActionDataSample) -> tuple[int, int]:
    """(h, w) of the masks that a sample is given, see :meth:`QueryMaskHead.finish`."""
    meta = sample.metainfo
    return tuple(meta.get('ori_shape', meta['img_shape'])[:2])


def cell_positions(
    level: Tensor, pad_shape: tuple[int, int], within: float = 0.0
) -> Tensor:
    """Positions (x, y) in the cells of a level, in pixels, (h, w, 2).

    Args:
        level: (B, C, h, w)
        pad_shape: (H, W) of the clips.
        within: Where in the cell, from 0, its upper left corner, to 1.
    """
    rows, columns = (
        (torch.arange(cells, device=level.device) + within) * (pixels / cells)
        for cells, pixels in zip(level.shape[-2:], pad_shape, strict=True)
    )
    return torch.stack(torch.meshgrid(columns, rows, indexing='xy'), dim=-1)


def outside_distances(points: Tensor, bboxes: Tensor) -> Tensor:
    """Distances of points outside of boxes, in widths plus heights of the box.

    Args:
        points: x and y in pixels, (h, w, 2).
        bboxes: Pixel xyxy, (n, 4).

    Returns:
        (n, h, w), 0 inside.
    """
    low, high = full_precision(bboxes)[:, None, None].split(2, dim=-1)
    beyond = torch.maximum(low - points, points - high).clamp(min=0)
    return (beyond / (high - low).clamp(min=1)).sum(dim=-1)


def resize(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits or masks (n, h, w) at another size, linear in between."""
    if values.shape[1:] == size:
        return values
    return F.interpolate(values[:, None], size, mode='bilinear', align_corners=False)[
        :, 0
    ]


def get_masks(sample: ActionDataSample) -> Tensor:
    """Masks of a sample's persons, (k, h, w) bool, without padding."""
    masks = sample.gt_instances.get('masks')
    if masks is None:
        raise UserError(
            f'{sample_name(sample)} has no masks for model.mask_head; train on a '
            'KeyframeMaskDataset whose pipeline ends with PackMasks.'
        )
    return masks


def take_masks(
    data_samples: Sequence[ActionDataSample], persons: np.ndarray, frames: FrameShapes
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Masks of the persons that queries stand for, by one gather of all clips' masks.

    Args:
        data_samples: The ground truth.
        persons: i + 1 for the i-th of the clip, (B, Q), on the host.
        frames: Sizes of the frames.

    Returns:
        Clips and numbers of the queries (n,), their masks, and where their frames are,
        (n, H W) bool.
    """
    masks, device = [*map(get_masks, data_samples)], frames.img_shapes.device
    counts = [*map(len, masks)]
    pixels = np.repeat([clip_masks.shape[1:].numel() for clip_masks in masks], counts)
    clips, queries = (persons > 0).nonzero()
    owners = np.cumsum([0, *counts])[clips] + persons[clips, queries] - 1
    firsts = (pixels.cumsum() - pixels)[owners]  # pixels of the masks
    numbers = map(torch.from_numpy, (clips, queries, firsts))
    clips, queries, firsts = move_together([*numbers], device)
    heights, widths = frames.img_shapes[clips].T[..., None, None]
    rows, columns = (torch.arange(side, device=device) for side in frames.pad_shape)
    inside = (rows[:, None] < heights) & (columns < widths)
    places = firsts[:, None, None] + rows[:, None] * widths + columns
    values = torch.cat([clip_masks.flatten() for clip_masks in masks]).to(device)
    person_masks = values[places.where(inside, 0)] & inside
    return clips, queries, person_masks.flatten(1), inside.flatten(1)
