"""STMixer's decoder: stages that sample and mix."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from stmixer_mm.models.decoder.checks import check_widths
from stmixer_mm.models.decoder.query_decoder import QueryDecoder
from stmixer_mm.models.decoder.sampling.backends import (
    SAMPLING_BACKENDS,
    make_sampler,
)
from stmixer_mm.models.decoder.sampling.sampler import Sampler
from stmixer_mm.models.decoder.stage import STMixerStage
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class STMixerDecoder(QueryDecoder):
    """Refine learned queries in several stages.

    Wu et al., "STMixer: A One-Stage Sparse Action Detector", CVPR 2023, section 3.

    Args:
        num_frames: T of the feature maps.
        embed_dims: C, width of the queries and channels of the levels.
        num_queries: Q.
        num_stages: S.
        num_heads: Heads of the attention among queries.
        feedforward_channels: Hidden width of the feed-forward networks.
        num_groups: Groups of channels with sample points of their own.
        num_points: Sample points of a group.
        out_multiplier: Samples after mixing, in units of those before.
        num_classes: Number of action classes plus one, the host's dummy class 0.
        sampling_backend: See :func:`.choose_backend`; they differ in speed only.
        mixing_backend: See :class:`.AdaptiveMixing`; they differ in speed only.
        **kwargs: ``strides``, ``with_cp``, ``compile_stages`` and ``init_cfg`` of
            :class:`QueryDecoder`.

    Raises:
        UserError: Arguments that do not fit together.
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
        sampling_backend: Literal[('auto', *SAMPLING_BACKENDS)] = 'auto',
        mixing_backend: Literal['auto', 'literal', 'chunks'] = 'auto',
        **kwargs,
    ) -> None:
        check_widths(
            embed_dims, num_classes, num_heads=num_heads, num_groups=num_groups
        )
        stages = [
            STMixerStage(
                embed_dims=embed_dims,
                num_heads=num_heads,
                feedforward_channels=feedforward_channels,
                num_groups=num_groups,
                num_points=num_points,
                num_frames=num_frames,
                out_multiplier=out_multiplier,
                num_actions=num_classes - 1,
                mixing_backend=mixing_backend,
            )
            for _ in range(num_stages)
        ]
        super().__init__(
            stages=stages,
            num_frames=num_frames,
            embed_dims=embed_dims,
            num_queries=num_queries,
            num_classes=num_classes,
            **kwargs,
        )
        self.num_groups = num_groups
        self.sampling_backend = sampling_backend

    def make_memory(self, feats: Sequence[Tensor], strides: Sequence[float]) -> Sampler:
        return make_sampler(
            feats,
            strides=strides,
            num_groups=self.num_groups,
            backend=self.sampling_backend,
        )
