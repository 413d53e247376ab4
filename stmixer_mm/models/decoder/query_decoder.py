"""The base of all decoders: queries, the check of the feats, the loop over the stages.

Shapes: B clips, Q queries, D further queries, C channels, T frames, L levels.
"""

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stmixer_mm.errors import UserError
from stmixer_mm.models.decoder.stage import QueryStage
from stmixer_mm.models.strides import derive_strides
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import DecoderOutput, Queries, StageOutput


class ExtraQueries(NamedTuple):
    """Queries of a part of the detector, which enter behind the decoder's own."""

    queries: Queries  # (B, D, C) each
    boxes_xyzr: Tensor  # (B, D, 4), of tubelets (B, D, K, 4)
    blocked: Tensor  # Row must not attend to column: (D, D) or (B, D, D) bool.
    hidden: Tensor  # No query from elsewhere attends to it: (D,) or (B, D) bool.
    persons: Tensor  # (B, D), on the host, see :meth:`.SetCriterion.loss`
    prefix: str  # of the names of their losses


def join_blocked(num_queries: int, extras: Sequence[ExtraQueries]) -> Tensor:
    """Rows that must not attend to columns, (B, Q + D, Q + D) bool."""
    hidden = [extra.hidden.expand(extra.boxes_xyzr.shape[:2]) for extra in extras]
    hidden = F.pad(torch.cat(hidden, dim=1), (num_queries, 0))
    blocked = hidden[:, None].repeat(1, hidden.size(1), 1)
    first = num_queries
    for extra in extras:
        rows = slice(first, first := first + extra.boxes_xyzr.size(1))
        blocked[:, rows, rows] = extra.blocked
    return blocked


class QueryDecoder(BaseModule, metaclass=ABCMeta):
    """Refine queries and their boxes in stages.

    A subclass chooses the stage, and what the stages read of the feature maps.

    Args:
        make_stage: Makes a :class:`QueryStage` from ``embed_dims``, ``num_heads``,
            ``feedforward_channels`` and ``num_actions``.
        num_frames: T of the feature maps.
        embed_dims: C, width of the queries and channels of the levels, a multiple of 8
            and of ``num_heads``.
        num_queries: Q.
        num_stages: S.
        num_heads: Heads of the attention among queries.
        feedforward_channels: Hidden width of the feed-forward networks.
        num_classes: Number of action classes plus one, the host's dummy class 0; the
            detector sets it to the head's.
        with_cp: Keep only the inputs of each stage for the backward pass and compute
            the rest again: less RAM, more time.
        compile_stages: Compile each stage with :func:`torch.compile`, which takes its
            time on the first batch of each size; or a dict of its arguments.
    """

    # Of its stages; a head reads one of these.
    output_type: type = StageOutput

    def __init__(
        self,
        *,
        make_stage: Callable[..., QueryStage],
        num_frames: int,
        embed_dims: int = 256,
        num_queries: int = 100,
        num_stages: int = 6,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        num_classes: int,
        with_cp: bool = False,
        compile_stages: bool | dict = False,
    ) -> None:
        super().__init__()
        if min(num_frames, num_queries, num_stages, num_classes - 1) < 1:
            raise UserError(
                f'The decoder has num_frames={num_frames}, num_queries={num_queries}, '
                f'num_stages={num_stages} and num_classes={num_classes} with the dummy '
                'class 0; leave none empty.'
            )
        self.embed_dims = embed_dims
        self.num_frames = num_frames
        self.num_queries = num_queries
        self.num_classes = num_classes
        self.stages = ModuleList(
            make_stage(
                embed_dims=embed_dims,
                num_heads=num_heads,
                feedforward_channels=feedforward_channels,
                num_actions=num_classes - 1,
            )
            for _ in range(num_stages)
        )
        self.spatial_queries = nn.Embedding(num_queries, embed_dims)
        self.temporal_queries = nn.Embedding(num_queries, embed_dims)
        self.with_cp = with_cp
        if compile_stages is not False:
            options = {} if compile_stages is True else compile_stages
            for stage in self.stages:
                stage.compile(**options)

    def init_weights(self) -> None:
        nn.init.normal_(self.spatial_queries.weight)
        nn.init.normal_(self.temporal_queries.weight)
        super().init_weights()

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes for parts that make queries."""
        return dict(num_queries=self.num_queries, embed_dims=self.embed_dims)

    @abstractmethod
    def make_memory(self, feats: Sequence[Tensor], strides: Sequence[float]) -> object:
        """The memory that all stages read, made once from the feats."""

    def forward(
        self,
        feats: Sequence[Tensor],
        boxes_xyzr: Tensor,
        pad_shape: tuple[int, int],
        extras: Sequence[ExtraQueries] = (),
        which: slice = slice(None),
    ) -> DecoderOutput:
        """Predictions of the Q queries, then of further ones in their order.

        Args:
            feats: L levels (B, C, T, H_l, W_l), finest first.
            boxes_xyzr: Boxes to start from, (B, Q, 4).
            pad_shape: (h, w) of the padded clips.
            extras: Further queries.
            which: Stages whose predictions are read; others make none.
        """
        memory = self.make_memory(feats, self.strides_of(feats, pad_shape))
        queries, boxes_xyzr = self.start(boxes_xyzr)
        blocked = join_blocked(self.num_queries, extras) if extras else None
        for extra in map(self.fold, extras):
            boxes_xyzr = torch.cat((boxes_xyzr, extra.boxes_xyzr), dim=1)
            pairs = zip(queries, extra.queries, strict=True)
            queries = Queries(*(torch.cat(pair, dim=1) for pair in pairs))
        outputs = []
        read_stages = range(len(self.stages))[which]
        for number, stage in enumerate(self.stages):
            if self.with_cp:
                stage = partial(checkpoint, stage, use_reentrant=False)
            queries, boxes_xyzr, output = stage(
                queries, boxes_xyzr, memory, blocked, number in read_stages
            )
            outputs.append(output)
        return DecoderOutput(outputs[which], queries, boxes_xyzr)

    def fold(self, extra: ExtraQueries) -> ExtraQueries:
        """Further queries in the form of :meth:`start`."""
        return extra

    def query_vectors(self, queries: Queries) -> Tensor:
        """Vectors (B, Q, C) that tell persons apart.

        Spatial queries change with an action less than temporal ones.
        """
        return queries.spatial

    def start(self, boxes_xyzr: Tensor) -> tuple[Queries, Tensor]:
        """The learned queries, the same for each clip, and their boxes."""
        # Not its len, which is a constant where the batch is exported as dynamic.
        clips = boxes_xyzr.size(0)
        queries = Queries(
            *(
                F.layer_norm(embedding.weight, (self.embed_dims,)).expand(clips, -1, -1)
                for embedding in (self.spatial_queries, self.temporal_queries)
            )
        )
        return queries, boxes_xyzr

    def strides_of(
        self, feats: Sequence[Tensor], pad_shape: tuple[int, int]
    ) -> Sequence[float]:
        """The stride of each level; ``UserError`` for levels that do not fit."""
        expected = self.embed_dims, self.num_frames
        for level, feat in enumerate(feats):
            if feat.dim() != 5 or tuple(feat.shape[1:3]) != expected:
                raise UserError(
                    f'Level {level} of the feature maps is {tuple(feat.shape)}, not (B, '
                    f'C, T, H, W) with model.decoder.embed_dims={self.embed_dims} and '
                    f'num_frames={self.num_frames}; change these, the neck, the '
                    'backbone or the clip length.'
                )
        return derive_strides(feats, pad_shape)

    def check_readers(self, *readers: object) -> None:
        """Refuse what reads another ``output_type`` than the decoder's."""
        for reader in readers:
            wants = getattr(reader, 'output_type', None) or self.output_type
            if wants is not self.output_type:
                raise UserError(
                    f'{type(reader).__name__} goes with decoders of a {wants.__name__}, '
                    f'but {type(self).__name__} makes a {self.output_type.__name__}; '
                    'exchange the one or the other.'
                )


def build_decoder(config: dict, *, num_classes: int) -> QueryDecoder:
    """The decoder for a head with this number of classes."""
    return MODELS.build({**config, 'num_classes': num_classes})
