"""Adaptive mixing: a query mixes its samples with weights that it makes itself."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule, xavier_init
from torch import Tensor, nn

from stmixer_mm.models.decoder.mixing.products import linear_of_parts, linear_to_parts
from stmixer_mm.models.precision import products_dtype


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
        dtype = products_dtype(queries)
        rows = queries.flatten(0, 1).to(dtype)
        samples = samples.flatten(0, 1).to(dtype)
        generator, out_proj = self.weight_generator, self.out_proj
        parts = self.num_groups if samples.device.type == 'cpu' else 1
        with torch.autocast(samples.device.type, enabled=False):
            generated = linear_to_parts(rows, generator.weight, generator.bias, parts)
            by_part = zip(samples.chunk(parts, dim=1), generated, strict=True)
            mixed = linear_of_parts(self.mix, by_part, out_proj.weight, parts)
            mixed = mixed + out_proj.bias
        return queries + mixed.view_as(queries)

    def mix(self, samples: Tensor, generated: Tensor) -> Tensor:
        """Mix the samples of some groups, g of them.

        Args:
            samples: (B * Q, g, N, c)
            generated: Their weights, (B * Q, g * (c * c + out_points * N)).

        Returns:
            (B * Q, g * out_points * c)
        """
        channel_weights, point_weights = generated.unflatten(
            1, (samples.size(1), -1)
        ).split([self.group_channels**2, self.out_points * self.in_points], dim=-1)
        channel_weights = channel_weights.unflatten(-1, (self.group_channels, -1))
        point_weights = point_weights.unflatten(-1, (self.out_points, -1))
        mixed = _normalise_and_rectify(samples @ channel_weights)
        mixed = _normalise_and_rectify(point_weights @ mixed)
        return mixed.flatten(1)


def _normalise_and_rectify(mixed: Tensor) -> Tensor:
    """Layer norm over rows and channels, without affine parameters, then ReLU.

    PyTorch's layer norm computes in float32 whatever the type.
    """
    return F.layer_norm(mixed, mixed.shape[-2:]).relu_()
