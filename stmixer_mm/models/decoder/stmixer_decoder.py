"""STMixer's decoder: stages that sample and mix."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import Tensor

from stmixer_mm.errors import UserError, choose
from stmixer_mm.models.decoder.query_decoder import QueryDecoder
from stmixer_mm.models.decoder.sampling.backends import (
    SAMPLING_BACKENDS,
    choose_backend,
)
from stmixer_mm.models.decoder.sampling.sampler import Sampler
from stmixer_mm.models.decoder.stage import STMixerStage
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class STMixerDecoder(QueryDecoder):
    """Refine learned queries in several stages.

    Section 3 of the paper, see :class:`.STMixer`.

    Args:
        num_frames: T of the feature maps.
        num_groups: Groups of channels with sample points of their own.
        num_points: Sample points of a group.
        out_multiplier: Samples after mixing, in units of those before.
        sampling_backend: See :func:`.choose_backend`; they differ in speed only.
        mixing_backend: See :class:`.AdaptiveMixing`; they differ in speed only.
        **kwargs: Of :class:`QueryDecoder`.
    """

    stage_type: type[STMixerStage] = STMixerStage

    def __init__(
        self,
        *,
        num_frames: int,
        num_groups: int = 4,
        num_points: int = 32,
        out_multiplier: int = 4,
        sampling_backend: str = 'auto',
        mixing_backend: Literal['auto', 'literal', 'chunks'] = 'auto',
        **kwargs,
    ) -> None:
        choose('sampling_backend', sampling_backend, {'auto': None} | SAMPLING_BACKENDS)
        make_stage = partial(
            self.stage_type,
            num_groups=num_groups,
            num_points=num_points,
            num_frames=num_frames,
            out_multiplier=out_multiplier,
            mixing_backend=mixing_backend,
        )
        super().__init__(make_stage=make_stage, num_frames=num_frames, **kwargs)
        if self.embed_dims % num_groups:
            raise UserError(
                f'embed_dims={self.embed_dims} is not a multiple of num_groups='
                f'{num_groups}.'
            )
        self.num_groups = num_groups
        self.sampling_backend = sampling_backend

    def make_memory(self, feats: Sequence[Tensor], strides: Sequence[float]) -> Sampler:
        backend = choose_backend(self.sampling_backend, feats[0].device)
        sampler_type = SAMPLING_BACKENDS[backend]
        return sampler_type(feats, strides=strides, num_groups=self.num_groups)
