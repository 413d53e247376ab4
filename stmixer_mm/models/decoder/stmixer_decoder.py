"""The decoder: learned queries, initial boxes, and the loop over the stages."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...registry import MODELS
from ..boxes import xyxy_to_xyzr
from .sampling import check_backend, make_sampler
from .stage import Queries, StageOutput, STMixerStage


@MODELS.register_module()
class STMixerDecoder(BaseModule):
    """Refine learned queries, all starting from the whole frame, in several stages.

    Wu et al., "STMixer: A One-Stage Sparse Action Detector", CVPR 2023, section 3.

    Args:
        num_frames: T of the feature maps.
        embed_dims: C, width of the queries and channels of the maps.
        num_queries: Q.
        num_stages: S.
        num_heads: Heads of the attention among queries.
        feedforward_channels: Hidden width of the feed-forward networks.
        num_groups: Groups of channels with sample points of their own.
        num_points: Sample points of a group.
        out_multiplier: Rows after mixing, in units of the rows before.
        num_classes: Number of action classes plus one, the host's dummy class 0.
        strides: Pixels of the padded clip per cell of each map, finest first.
        sampling_backend: 'auto', 'grid_sample', 'mmcv', 'embedding_bag' or 'triton';
            they differ in speed only. See :func:`.sampling.choose_backend`.
        with_cp: Keep of each stage its inputs alone for the backward pass and compute
            the rest again: less memory, more time.
        compile_stages: Compile each stage with :func:`torch.compile`, which takes its
            time on the first batch of each size; or a dict of its arguments.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.

    Raises:
        ValueError: Arguments that do not fit together, or feature maps that do not
            fit the arguments.
    """

    def __init__(
        self,
        *,
        num_frames: int,
        embed_dims: int = 256,
        num_queries: int = 100,
        num_stages: int = 6,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        num_groups: int = 4,
        num_points: int = 32,
        out_multiplier: int = 4,
        num_classes: int = 81,
        strides: Sequence[int] = (4, 8, 16, 32),
        sampling_backend: str = 'auto',
        with_cp: bool = False,
        compile_stages: bool | dict = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        for name, divisor in (
            ('num_heads', num_heads),
            ('num_groups', num_groups),
            ('the position code', 8),
        ):
            if embed_dims % divisor:
                raise ValueError(
                    f'embed_dims={embed_dims} is not a multiple of {divisor}, which '
                    f'{name} needs; choose an embed_dims that is.'
                )
        if num_classes < 2:
            raise ValueError(
                f'num_classes={num_classes} leaves no action, because class 0 is a '
                'dummy; set it to the number of actions plus one.'
            )
        check_backend(sampling_backend)
        self.embed_dims = embed_dims
        self.num_frames = num_frames
        self.num_groups = num_groups
        self.num_classes = num_classes
        self.strides = tuple(strides)
        self.sampling_backend = sampling_backend
        self.spatial_queries = nn.Embedding(num_queries, embed_dims)
        self.temporal_queries = nn.Embedding(num_queries, embed_dims)
        self.stages = ModuleList(
            STMixerStage(
                embed_dims=embed_dims,
                num_heads=num_heads,
                feedforward_channels=feedforward_channels,
                num_groups=num_groups,
                num_points=num_points,
                num_frames=num_frames,
                out_multiplier=out_multiplier,
                num_actions=num_classes - 1,
            )
            for _ in range(num_stages)
        )
        self.with_cp = with_cp
        if compile_stages is not False:
            options = {} if compile_stages is True else compile_stages
            for stage in self.stages:
                stage.compile(**options)

    def init_weights(self) -> None:
        nn.init.normal_(self.spatial_queries.weight)
        nn.init.normal_(self.temporal_queries.weight)
        super().init_weights()

    def forward(
        self,
        feats: Sequence[Tensor],
        *,
        img_shapes: Tensor,
        pad_shape: tuple[int, int],
    ) -> list[StageOutput]:
        """
        Args:
            feats: L maps (B, C, T, H_l, W_l), finest first.
            img_shapes: (h, w) of each clip without padding, (B, 2).
            pad_shape: (h, w) of the padded clips.

        Returns:
            One record per stage, the first stage first.
        """
        self.check_feats(feats, pad_shape)
        sampler = make_sampler(
            feats,
            strides=self.strides,
            num_groups=self.num_groups,
            backend=self.sampling_backend,
        )
        queries, boxes_xyzr = self.start(img_shapes)
        outputs = []
        for stage in self.stages:
            run = stage
            if self.with_cp:
                run = partial(checkpoint, stage, use_reentrant=False)
            queries, boxes_xyzr, output = run(queries, boxes_xyzr, sampler)
            outputs.append(output)
        return outputs

    def start(self, img_shapes: Tensor) -> tuple[Queries, Tensor]:
        """The learned queries, and for each of them the whole frame as its box."""
        height_width = img_shapes.to(self.spatial_queries.weight.device, torch.float32)
        whole_frame = torch.cat(
            (torch.zeros_like(height_width), height_width.flip(-1)), dim=-1
        )
        queries = Queries(
            *(
                F.layer_norm(embedding.weight, (self.embed_dims,)).expand(
                    len(img_shapes), -1, -1
                )
                for embedding in (self.spatial_queries, self.temporal_queries)
            )
        )
        num_queries = queries.spatial.size(1)
        return queries, xyxy_to_xyzr(whole_frame)[:, None].repeat(1, num_queries, 1)

    def check_feats(self, feats: Sequence[Tensor], pad_shape: tuple[int, int]) -> None:
        """Say in one sentence which setting does not fit the maps."""
        if len(feats) != len(self.strides):
            raise ValueError(
                f'The neck yields {len(feats)} maps but the decoder has '
                f'strides={self.strides}; give one stride per map.'
            )
        height, width = pad_shape
        for level, (feat, stride) in enumerate(zip(feats, self.strides, strict=True)):
            _, channels, frames, rows, columns = feat.shape
            if frames != self.num_frames:
                raise ValueError(
                    f'The feature maps have {frames} frames but the decoder has '
                    f'num_frames={self.num_frames}; set model.decoder.num_frames='
                    f'{frames}, or change the clip length or the backbone.'
                )
            if channels != self.embed_dims:
                raise ValueError(
                    f'Map {level} has {channels} channels but the decoder has '
                    f'embed_dims={self.embed_dims}; set both to the same number.'
                )
            if abs(rows - height / stride) >= 1 or abs(columns - width / stride) >= 1:
                raise ValueError(
                    f'Map {level} has {rows}x{columns} cells for a clip padded to '
                    f'{height}x{width}, so its stride is about '
                    f'{height / rows:g}, not strides[{level}]={stride}; correct '
                    "the decoder's strides or the neck."
                )
