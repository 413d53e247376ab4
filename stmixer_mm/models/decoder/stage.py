"""One decoder stage: attend, sample, mix, refine, classify (paper, figure 2).

Shapes: B clips, Q queries, C channels, G groups, P points of a group, T frames,
A actions.
"""

from abc import ABCMeta, abstractmethod

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import FFN
from mmengine.model import BaseModule, bias_init_with_prob
from torch import Tensor, nn

from stmixer_mm.models.boxes import (
    box_size,
    intersection_over_foreground,
    position_wavelengths,
    refine_boxes,
    sine_position_code,
    span,
    xyzr_to_xyxy,
)
from stmixer_mm.models.decoder.mixing.adaptive_mixing import AdaptiveMixing
from stmixer_mm.models.decoder.sampling.sampler import Sampler, make_sample_points
from stmixer_mm.models.precision import full_precision
from stmixer_mm.structures import Queries, StageOutput


class QueryStage(BaseModule, metaclass=ABCMeta):
    """One stage of a decoder: refine both query sets and their boxes.

    Args:
        embed_dims: C.
        num_actions: A.
    """

    def __init__(self, *, embed_dims: int, num_actions: int) -> None:
        super().__init__()
        self.person_branch = _prediction_branch(embed_dims, 2)
        self.box_branch = _prediction_branch(embed_dims, 4)
        self.action_branch = _prediction_branch(2 * embed_dims, num_actions)
        nn.init.constant_(self.action_branch[-1].bias, bias_init_with_prob(0.01))

    def init_weights(self) -> None:
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        super().init_weights()  # modules with an initialisation of their own
        nn.init.zeros_(self.box_branch[-1].weight)
        nn.init.zeros_(self.box_branch[-1].bias)

    def forward(
        self,
        queries: Queries,
        boxes_xyzr: Tensor,
        memory: object,
        blocked: Tensor | None = None,
        is_read: bool = True,
    ) -> tuple[Queries, Tensor, StageOutput | None]:
        """Refined queries, refined boxes and their predictions, if these are read.

        Args:
            queries: Both sets of the stage before.
            boxes_xyzr: (B, Q, 4)
            memory: From :meth:`.QueryDecoder.make_memory`.
            blocked: Row must not attend to column: (B, Q, Q) bool.
            is_read: The predictions are needed.
        """
        queries = self.update(queries, boxes_xyzr, memory, blocked)
        boxes_xyzr = refine_boxes(boxes_xyzr, self.box_branch(queries.spatial))
        output = self.read_out(queries, boxes_xyzr) if is_read else None
        return queries, boxes_xyzr, output

    @abstractmethod
    def update(
        self,
        queries: Queries,
        boxes_xyzr: Tensor,
        memory: object,
        blocked: Tensor | None,
    ) -> Queries:
        """Refined queries; see :meth:`forward`."""

    def read_out(self, queries: Queries, boxes_xyzr: Tensor) -> StageOutput:
        """Predictions of refined queries and boxes."""
        return StageOutput(
            person_logits=self.person_branch(queries.spatial),
            action_logits=self.action_branch(torch.cat(queries, dim=-1)),
            bboxes=xyzr_to_xyxy(boxes_xyzr),
        )


class STMixerStage(QueryStage):
    """Attend, sample, mix, refine; see :class:`.STMixerDecoder` for the arguments."""

    def __init__(
        self,
        *,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        num_groups: int,
        num_points: int,
        num_frames: int,
        out_multiplier: int,
        num_actions: int,
        mixing_backend: str,
    ) -> None:
        super().__init__(embed_dims=embed_dims, num_actions=num_actions)
        self.num_groups = num_groups
        self.num_points = num_points

        wavelengths = position_wavelengths(embed_dims)
        self.register_buffer('wavelengths', wavelengths, persistent=False)
        self.iof_tau = nn.Parameter(torch.zeros(num_heads))
        self.offsets = nn.Linear(embed_dims, num_groups * num_points * 3)
        self.spatial, self.temporal = (
            _QueryBranch(
                embed_dims=embed_dims,
                num_heads=num_heads,
                feedforward_channels=feedforward_channels,
                num_groups=num_groups,
                num_samples=num_samples,
                out_samples=out_multiplier * num_samples,
                backend=mixing_backend,
            )
            for num_samples in (num_points, num_frames)
        )

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.uniform_(self.iof_tau, 0, 4)
        nn.init.zeros_(self.offsets.weight)
        offsets = spread_offsets(self.num_groups, self.num_points)
        self.offsets.bias.data.copy_(offsets)

    def update(
        self,
        queries: Queries,
        boxes_xyzr: Tensor,
        memory: Sampler,
        blocked: Tensor | None,
    ) -> Queries:
        """See :meth:`QueryStage.forward`; ``memory`` samples ``num_frames`` frames."""
        size = box_size(boxes_xyzr)
        queries = self.attend(queries, boxes_xyzr.detach(), size.detach(), blocked)
        offsets = self.offsets(queries.spatial).unflatten(
            -1, (self.num_groups, self.num_points, 3)
        )
        points = make_sample_points(offsets, boxes_xyzr, size)
        return self.mix(queries, *self.sample(points, memory))

    def attend(
        self, queries: Queries, boxes_xyzr: Tensor, size: Tensor, blocked: Tensor | None
    ) -> Queries:
        """Let each query set attend to itself, knowing where the boxes are."""
        position_code, iof = self.relate_boxes(boxes_xyzr, size)
        bias = self.attention_bias(iof, blocked)
        return Queries(
            self.spatial.attend(queries.spatial, position_code, bias),
            self.temporal.attend(queries.temporal, position_code, bias),
        )

    def relate_boxes(self, boxes_xyzr: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """Position code (B, Q, C), and share of a box within another (B, Q, Q)."""
        centre = full_precision(boxes_xyzr)[..., :2]
        iof = intersection_over_foreground(span(centre, size))
        return sine_position_code(boxes_xyzr, self.wavelengths), iof

    def attention_bias(self, iof: Tensor, blocked: Tensor | None) -> Tensor:
        """Addend to attention logits (B, num_heads, Q, Q), from ``iof`` (B, Q, Q)."""
        bias = self.iof_tau.view(-1, 1, 1) * (iof + 1e-7).log().unsqueeze(1)
        if blocked is None:
            return bias
        return bias.masked_fill(blocked.unsqueeze(1), float('-inf'))

    def sample(self, points: Tensor, memory: Sampler) -> tuple[Tensor, Tensor]:
        """Samples for the two query sets, (B, Q, G, P, c) and (B, Q, G, T, c)."""
        return memory(points)

    def mix(
        self, queries: Queries, point_samples: Tensor, frame_samples: Tensor
    ) -> Queries:
        """Mix the samples into each query set."""
        return Queries(
            self.spatial.mix(point_samples, queries.spatial),
            self.temporal.mix(frame_samples, queries.temporal),
        )


class _QueryBranch(BaseModule):
    """The way of one query set through a stage: attention, then mixing and FFN."""

    def __init__(
        self, *, embed_dims: int, num_heads: int, feedforward_channels: int, **mixing
    ) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(embed_dims, num_heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(embed_dims)
        self.mixing = AdaptiveMixing(
            query_dims=embed_dims, in_channels=embed_dims, **mixing
        )
        self.mixing_norm = nn.LayerNorm(embed_dims)
        self.ffn = FFN(embed_dims, feedforward_channels)
        self.ffn_norm = nn.LayerNorm(embed_dims)

    def attend(self, queries: Tensor, position_code: Tensor, bias: Tensor) -> Tensor:
        queries = queries + position_code
        return self.attention_norm(queries + attend(self.attention, queries, bias))

    def mix(self, samples: Tensor, queries: Tensor) -> Tensor:
        queries = self.mixing_norm(self.mixing(samples, queries))
        return self.ffn_norm(self.ffn(queries))


def attend(attention: nn.MultiheadAttention, queries: Tensor, bias: Tensor) -> Tensor:
    """Self-attention with a bias (B, num_heads, Q, Q): ``attention`` in fewer kernels.

    PyTorch's puts the queries first, copies them for it, and needs an equal type.
    """
    qkv = F.linear(queries, attention.in_proj_weight, attention.in_proj_bias)
    heads = qkv.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(*heads, attn_mask=bias.to(qkv.dtype))
    return attention.out_proj(attended.transpose(1, 2).flatten(2))


def _prediction_branch(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_channels, in_channels),
        nn.LayerNorm(in_channels),
        nn.ReLU(inplace=True),
        nn.Linear(in_channels, out_channels),
    )


def spread_offsets(num_groups: int, num_points: int) -> Tensor:
    """Initial offsets: points spread over the box, at the box's own scale.

    A regular grid where the number of points is a square, uniformly random otherwise.

    Returns:
        (num_groups * num_points * 3,): dx, dy in [-0.5, 0.5], dz = 0.
    """
    side = round(num_points**0.5)
    if side**2 == num_points:
        centres = (torch.arange(side) + 0.5) / side - 0.5
        grid = torch.cartesian_prod(centres, centres).flip(-1)
        offsets_xy = grid.repeat(num_groups, 1)
    else:
        offsets_xy = torch.rand(num_groups * num_points, 2) - 0.5
    return torch.cat((offsets_xy, torch.zeros(len(offsets_xy), 1)), dim=1).flatten()
