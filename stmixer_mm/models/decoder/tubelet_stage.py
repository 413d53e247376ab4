"""A stage of the tubelet decoder: a keyframe's stage on every frame, and over time.

Shapes: B clips, T frames of the feature maps, Q tubelets, C channels, A actions,
G groups, c channels of a group. What belongs to a frame is folded into the batch,
(B * T, Q, ...), so that attention, sampling and mixing are those of keyframes.
"""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from stmixer_mm.models.boxes import xyzr_to_xyxy
from stmixer_mm.models.decoder.sampling.sampler import Sampler
from stmixer_mm.models.decoder.stage import STMixerStage
from stmixer_mm.structures import Queries, TubeletStageOutput


class STMixerTubeletStage(STMixerStage):
    """Attend in each frame, then over time; sample each frame, mix, refine.

    ``queries.spatial`` and boxes are folded, (B * T, Q, ...); ``queries.temporal`` has
    one query for each tubelet, (B, Q, C). ``memory`` samples B * T clips of one frame.
    """

    frame_actions = False  # whether actions are those of each frame, not of the clip

    def __init__(
        self, *, embed_dims: int, num_heads: int, num_frames: int, **kwargs
    ) -> None:
        super().__init__(
            embed_dims=embed_dims, num_heads=num_heads, num_frames=num_frames, **kwargs
        )
        self.num_frames = num_frames
        self.over_time = TimeAttention(
            embed_dims=embed_dims, num_heads=num_heads, num_frames=num_frames
        )

    def attend(
        self, queries: Queries, boxes_xyzr: Tensor, blocked: Tensor | None
    ) -> Queries:
        """Spatial queries attend in their frame, then to their own tubelet."""
        position_code, iof = self.relate_boxes(boxes_xyzr)
        spatial = self.spatial.attend(
            queries.spatial, position_code, self.attention_bias(iof, blocked)
        )
        spatial = self.over_time(self.unfold(spatial))
        temporal = self.temporal.attend(
            queries.temporal,
            self.unfold(position_code).mean(dim=2),
            self.attention_bias(self.unfold(iof).mean(dim=2), blocked),
        )
        return Queries(spatial.transpose(1, 2).flatten(0, 1), temporal)

    def sample(
        self, spatial: Tensor, boxes_xyzr: Tensor, memory: Sampler
    ) -> tuple[Tensor, Tensor]:
        """(B * T, Q, G, P, c), and their means over the points (B, Q, G, T, c)."""
        point_samples, frame_samples = super().sample(spatial, boxes_xyzr, memory)
        return point_samples, self.unfold(frame_samples.squeeze(3)).transpose(2, 3)

    def read_out(self, queries: Queries, boxes_xyzr: Tensor) -> TubeletStageOutput:
        """Predictions of folded queries and boxes, unfolded."""
        spatial = self.unfold(queries.spatial)
        if self.frame_actions:
            temporal = queries.temporal.unsqueeze(2).expand_as(spatial)
        else:
            spatial, temporal = spatial.mean(dim=2), queries.temporal
        return TubeletStageOutput(
            person_logits=self.unfold(self.person_branch(queries.spatial)),
            action_logits=self.action_branch(torch.cat((spatial, temporal), dim=-1)),
            bboxes=self.unfold(xyzr_to_xyxy(boxes_xyzr)),
        )

    def unfold(self, values: Tensor) -> Tensor:
        """(B * T, Q, ...) -> (B, Q, T, ...)"""
        return values.unflatten(0, (-1, self.num_frames)).transpose(1, 2)


class TimeAttention(BaseModule):
    """The queries of a tubelet attend to each other, so that it stays on one person.

    Each of the T frames has a learned code.
    """

    def __init__(self, *, embed_dims: int, num_heads: int, num_frames: int) -> None:
        super().__init__()
        self.code = nn.Parameter(torch.zeros(num_frames, embed_dims))
        self.attention = nn.MultiheadAttention(embed_dims, num_heads, batch_first=True)
        self.norm = nn.LayerNorm(embed_dims)

    def init_weights(self) -> None:
        nn.init.normal_(self.code, std=0.5)

    def forward(self, queries: Tensor) -> Tensor:
        """(B, Q, T, C) to the same."""
        tubelets = queries.flatten(0, 1)
        coded = tubelets + self.code
        attended, _ = self.attention(coded, coded, tubelets, need_weights=False)
        return self.norm(tubelets + attended).view_as(queries)
