"""Adaptive mixing: a query mixes its samples with weights that it makes itself."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule, xavier_init
from torch import Tensor, nn

from ..boxes import full_precision


class AdaptiveMixing(BaseModule):
    """Mix channels, then points, of each group (paper, section 3.2).

    X (N, c) -> ReLU(LN(X M)) -> ReLU(LN(S X)), with M (c, c) and S (out_points, N)
    generated from the query; then a linear map of all groups, added to the query.

    Args:
        query_dims: Width of the queries.
        in_channels: Channels of all groups.
        num_groups: G.
        in_points: N, the rows to be mixed: points or frames.
        out_points: Rows after mixing.
    """

    def __init__(
        self,
        *,
        query_dims: int,
        in_channels: int,
        num_groups: int,
        in_points: int,
        out_points: int,
    ) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.group_channels = in_channels // num_groups
        self.in_points = in_points
        self.out_points = out_points
        generated = self.group_channels**2 + out_points * in_points
        self.weight_generator = nn.Linear(query_dims, num_groups * generated)
        self.out_proj = nn.Linear(out_points * in_channels, query_dims)

    def init_weights(self) -> None:
        # The generator starts from its bias alone: the same mixing for every query.
        nn.init.zeros_(self.weight_generator.weight)
        xavier_init(self.out_proj, distribution='uniform')

    def forward(self, samples: Tensor, queries: Tensor) -> Tensor:
        """
        Args:
            samples: (B, Q, G, N, c)
            queries: (B, Q, query_dims)

        Returns:
            (B, Q, query_dims)
        """
        generator, out_proj = self.weight_generator, self.out_proj
        if samples.is_cuda or torch.is_grad_enabled():
            return queries + F.linear(
                self.mix_groups(samples, queries, generator.weight, generator.bias),
                out_proj.weight,
                out_proj.bias,
            )
        # What is generated for all groups overflows a CPU's cache, and is more than
        # its allocator keeps for the next call: one group at a time is faster.
        group_args = zip(
            samples.split(1, dim=2),
            generator.weight.chunk(self.num_groups),
            generator.bias.chunk(self.num_groups),
            out_proj.weight.chunk(self.num_groups, dim=1),
            strict=True,
        )
        output = out_proj.bias
        for group_samples, weight, bias, out_weight in group_args:
            mixed = self.mix_groups(group_samples, queries, weight, bias)
            output = output + F.linear(mixed, out_weight)
        return queries + output

    def mix_groups(
        self, samples: Tensor, queries: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        """Mix some of the groups.

        Args:
            samples: (B, Q, g, N, c)
            queries: (B, Q, query_dims)
            weight: Of their part of the generator, (g * generated, query_dims).
            bias: (g * generated,)

        Returns:
            (B, Q, g * out_points * c)
        """
        generated = F.linear(queries, weight, bias).unflatten(-1, (samples.size(2), -1))
        num_channel_weights = self.group_channels**2
        channel_weights = generated[..., :num_channel_weights].unflatten(
            -1, (self.group_channels, self.group_channels)
        )
        point_weights = generated[..., num_channel_weights:].unflatten(
            -1, (self.out_points, self.in_points)
        )
        mixed = _normalise_and_rectify(samples @ channel_weights)
        mixed = _normalise_and_rectify(point_weights @ mixed)
        return mixed.flatten(2)


def _normalise_and_rectify(mixed: Tensor) -> Tensor:
    """Layer norm over rows and channels, without affine parameters, then ReLU."""
    return F.layer_norm(full_precision(mixed), mixed.shape[-2:]).relu_()
