"""What all decoders share: queries, their first boxes, and the loop over the stages.

Shapes: B clips, Q queries, D further queries, C channels, T frames, L levels.
"""

from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stmixer_mm.errors import UserError
from stmixer_mm.models.decoder.checks import check_counts
from stmixer_mm.models.decoder.stage import Queries, QueryStage, StageOutput
from stmixer_mm.models.strides import derive_strides, fits_stride
from stmixer_mm.registry import MODELS


class ExtraQueries(NamedTuple):
    """Queries that a training step adds behind the decoder's own."""

    queries: Queries  # (B, D, C) each
    boxes_xyzr: Tensor  # (B, D, 4)
    blocked: Tensor  # (Q + D, Q + D) bool: row must not attend to column


class QueryDecoder(BaseModule, metaclass=ABCMeta):
    """Refine queries and their boxes in stages.

    A subclass makes the stages and what they read of the feature maps.

    Args:
        stages: S of them.
        num_frames: T of the feature maps.
        embed_dims: C, width of the queries and channels of the maps.
        num_queries: Q.
        num_classes: Number of action classes plus one, the host's dummy class 0.
        strides: Pixels of the padded clip per cell of each map, finest first; None to
            derive them from the sizes of the maps.
        initial_boxes: Config of an :class:`InitialBoxes`; the whole frame by default.
        with_cp: Keep of each stage its inputs alone for the backward pass and compute
            the rest again: less memory, more time.
        compile_stages: Compile each stage with :func:`torch.compile`, which takes its
            time on the first batch of each size; or a dict of its arguments.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.

    Raises:
        ValueError: An argument is out of range, or feature maps do not fit them.
    """

    def __init__(
        self,
        *,
        stages: Sequence[QueryStage],
        num_frames: int,
        embed_dims: int,
        num_queries: int,
        num_classes: int,
        strides: Sequence[float] | None = None,
        initial_boxes: dict | None = None,
        with_cp: bool = False,
        compile_stages: bool | dict = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_counts(
            num_frames=num_frames, num_queries=num_queries, num_stages=len(stages)
        )
        if isinstance(strides, int | float):
            raise UserError(
                f'The decoder has strides={strides}; give one for each map in a list, '
                'or none to derive them.'
            )
        self.embed_dims = embed_dims
        self.num_frames = num_frames
        self.num_queries = num_queries
        self.num_classes = num_classes
        self.strides = None if strides is None else tuple(strides)
        self.spatial_queries = nn.Embedding(num_queries, embed_dims)
        self.temporal_queries = nn.Embedding(num_queries, embed_dims)
        self.initial_boxes = MODELS.build(
            initial_boxes or dict(type='stmixer_mm.WholeFrameBoxes'),
            default_args=dict(num_queries=num_queries),
        )
        self.stages = ModuleList(stages)
        self.with_cp = with_cp
        if compile_stages is not False:
            options = {} if compile_stages is True else compile_stages
            for stage in self.stages:
                stage.compile(**options)

    def init_weights(self) -> None:
        nn.init.normal_(self.spatial_queries.weight)
        nn.init.normal_(self.temporal_queries.weight)
        super().init_weights()

    @abstractmethod
    def make_memory(self, feats: Sequence[Tensor], strides: Sequence[float]) -> object:
        """What all stages read, made once from the maps."""

    def forward(
        self,
        feats: Sequence[Tensor],
        *,
        img_shapes: Tensor,
        pad_shape: tuple[int, int],
        boxes_xyzr: Tensor | None = None,
        extra: ExtraQueries | None = None,
    ) -> list[StageOutput]:
        """
        Args:
            feats: L maps (B, C, T, H_l, W_l), finest first.
            img_shapes: (h, w) of each clip without padding, (B, 2).
            pad_shape: (h, w) of the padded clips.
            boxes_xyzr: Boxes to start from, (B, Q, 4); by default those of
                ``initial_boxes``.
            extra: D queries more.

        Returns:
            One record per stage, the first stage first, of Q queries (Q + D with
            ``extra``).
        """
        self.check_feats(feats, pad_shape)
        if boxes_xyzr is None:
            boxes_xyzr = self.initial_boxes.predict(
                feats, img_shapes=img_shapes, pad_shape=pad_shape
            )
        queries, blocked = self.start(len(img_shapes)), None
        if extra is not None:
            boxes_xyzr = torch.cat((boxes_xyzr, extra.boxes_xyzr), dim=1)
            queries = Queries(
                *(
                    torch.cat(both, dim=1)
                    for both in zip(queries, extra.queries, strict=True)
                )
            )
            blocked = extra.blocked
        memory = self.make_memory(
            feats, self.strides or derive_strides(feats, pad_shape)
        )
        outputs = []
        for stage in self.stages:
            run = stage
            if self.with_cp:
                run = partial(checkpoint, stage, use_reentrant=False)
            queries, boxes_xyzr, output = run(queries, boxes_xyzr, memory, blocked)
            outputs.append(output)
        return outputs

    def start(self, batch_size: int) -> Queries:
        """The learned queries, the same for each clip."""
        return Queries(
            *(
                F.layer_norm(embedding.weight, (self.embed_dims,)).expand(
                    batch_size, -1, -1
                )
                for embedding in (self.spatial_queries, self.temporal_queries)
            )
        )

    def check_feats(self, feats: Sequence[Tensor], pad_shape: tuple[int, int]) -> None:
        """Say in one sentence which setting does not fit the maps."""
        self.check_maps(feats, pad_shape)
        self.check_frames(feats)

    def check_frames(self, feats: Sequence[Tensor]) -> None:
        """See :meth:`check_feats`; the maps' number of frames alone."""
        for feat in feats:
            frames = feat.size(2)
            if frames != self.num_frames:
                raise UserError(
                    f'The feature maps have {frames} frames but the decoder has '
                    f'num_frames={self.num_frames}; set model.decoder.num_frames='
                    f'{frames}, or change the clip length or the backbone.'
                )

    def check_maps(self, feats: Sequence[Tensor], pad_shape: tuple[int, int]) -> None:
        """See :meth:`check_feats`; all but the maps' number of frames."""
        strides = self.strides
        if strides is not None and len(feats) != len(strides):
            raise UserError(
                f'The neck yields {len(feats)} maps but the decoder has '
                f'strides={strides}; give one stride per map, or none to derive them.'
            )
        for level, feat in enumerate(feats):
            channels, size = feat.size(1), tuple(feat.shape[-2:])
            if channels != self.embed_dims:
                raise UserError(
                    f'Map {level} has {channels} channels but the decoder has '
                    f'embed_dims={self.embed_dims}; set both to the same number.'
                )
            if strides is not None and not fits_stride(size, pad_shape, strides[level]):
                raise UserError(
                    f'Map {level} has {size[0]}x{size[1]} cells for a clip padded to '
                    f'{pad_shape[0]}x{pad_shape[1]}, so its stride is about '
                    f'{pad_shape[0] / size[0]:g}, not strides[{level}]='
                    f'{strides[level]}; correct the strides of the decoder, or leave '
                    'them out.'
                )
        if strides is None:
            derive_strides(feats, pad_shape)
        self.initial_boxes.check_maps(feats, pad_shape)
