"""Adaptive mixing: a query mixes its samples with weights that it generates.

Shapes: B clips, Q queries, G groups, N samples of a group, c channels of a group.
"""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from stmixer_mm.models.decoder.mixing.chunks import mix_in_chunks, pack_chunks


class AdaptiveMixing(BaseModule):
    """Mix channels, then samples, of each group (paper, section 3.2).

    X (N, c) -> ReLU(LN(X M)) -> ReLU(LN(S X)), with M (c, c) and S (out_samples, N)
    generated from the query; then a linear map of all groups, added to the query.

    Args:
        query_dims: Width of the queries.
        in_channels: Channels of all groups.
        num_groups: G.
        num_samples: N, of points or of frames.
        out_samples: Samples of a group after mixing.
        backend: 'literal', as it reads; 'chunks', the same in less time and RAM, see
            :mod:`.chunks`; 'auto' takes the latter, and the former where it is compiled
            or exported, or where the linear layers are of another class (FSDP's, say).
    """

    def __init__(
        self,
        *,
        query_dims: int,
        in_channels: int,
        num_groups: int,
        num_samples: int,
        out_samples: int,
        backend: str = 'auto',
    ) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.group_channels = in_channels // num_groups
        self.num_samples = num_samples
        self.out_samples = out_samples
        self.backend = backend
        generated = self.group_channels**2 + out_samples * num_samples
        self.weight_generator = nn.Linear(query_dims, num_groups * generated)
        self.out_proj = nn.Linear(out_samples * in_channels, query_dims)
        self.packed = ()

    def init_weights(self) -> None:
        # The generator starts from its bias alone: the same mixing for every query.
        nn.init.zeros_(self.weight_generator.weight)
        nn.init.xavier_uniform_(self.out_proj.weight)  # its bias keeps the default

    def forward(self, samples: Tensor, queries: Tensor) -> Tensor:
        """Samples (B, Q, G, N, c) and queries (B, Q, query_dims) to queries."""
        backend = self.backend
        is_compiling = torch.compiler.is_compiling()
        linears = self.weight_generator, self.out_proj
        if backend == 'auto':
            # Chunks take weights past the layers' forward, where FSDP gathers them.
            is_plain = all(type(linear) is nn.Linear for linear in linears)
            backend = 'chunks' if is_plain and not is_compiling else 'literal'
        if self.packed or backend == 'chunks':
            mix = mix_in_chunks
            # Where nothing is compiled, it would load the compiler for nothing: 1.5 s.
            if self.packed and is_compiling:
                mix = torch.compiler.disable(mix)
            mixed = mix(self.mix_groups, samples, queries, *linears, self.packed)
        else:
            mixed = self.mix_groups(samples, self.weight_generator(queries))
            mixed = self.out_proj(mixed)
        return queries + mixed

    @torch.no_grad()
    def pack(self) -> None:
        """Bring the weights into oneDNN's own layout: for inference on a CPU alone."""
        linears = self.weight_generator, self.out_proj
        self.packed = pack_chunks(*linears, self.num_groups)
        for linear in linears:
            linear.weight = None

    def mix_groups(self, samples: Tensor, weights: Tensor) -> Tensor:
        """Mix samples (..., g, N, c) of some groups to (..., g * out_samples * c).

        Their generated weights are (..., g * (c * c + out_samples * N)).
        """
        channel_weights, sample_weights = weights.unflatten(
            -1, (samples.size(-3), -1)
        ).split([self.group_channels**2, self.out_samples * self.num_samples], dim=-1)
        channel_weights = channel_weights.unflatten(-1, (self.group_channels, -1))
        sample_weights = sample_weights.unflatten(-1, (self.out_samples, -1))
        mixed = _normalise_and_rectify(samples @ channel_weights)
        mixed = _normalise_and_rectify(sample_weights @ mixed)
        return mixed.flatten(-3)


def _normalise_and_rectify(mixed: Tensor) -> Tensor:
    """Layer norm over samples and channels, without affine parameters, then ReLU.

    PyTorch's layer norm sums in float32 whatever the type.
    """
    return F.layer_norm(mixed, mixed.shape[-2:]).relu_()
