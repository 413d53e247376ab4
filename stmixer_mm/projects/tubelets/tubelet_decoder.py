"""STMixer's decoder of tubelets: a box in every frame, one set of actions.

Shapes: B clips, T frames of the feature maps, K frames of the clip, Q tubelets, D
further ones, C channels, A actions, G groups, c channels of a group. What belongs to a
frame is folded into the batch, (B * T, Q, ...), so that attention, sampling and mixing
are those of keyframes.
"""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from stmixer_mm.models.boxes import xyzr_to_xyxy
from stmixer_mm.models.decoder.query_decoder import ExtraQueries
from stmixer_mm.models.decoder.sampling.sampler import Sampler
from stmixer_mm.models.decoder.stage import STMixerStage
from stmixer_mm.models.decoder.stmixer_decoder import STMixerDecoder
from stmixer_mm.models.folding import fold_time
from stmixer_mm.registry import MODELS
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
        sizes = dict(embed_dims=embed_dims, num_heads=num_heads, num_frames=num_frames)
        super().__init__(**sizes, **kwargs)
        self.num_frames = num_frames
        self.over_time = TimeAttention(**sizes)

    def attend(
        self, queries: Queries, boxes_xyzr: Tensor, size: Tensor, blocked: Tensor | None
    ) -> Queries:
        """Spatial queries attend in their frame, then to their own tubelet."""
        position_code, iof = self.relate_boxes(boxes_xyzr, size)
        in_frames = blocked
        if blocked is not None:
            in_frames = blocked.repeat_interleave(self.num_frames, dim=0)
        spatial = self.spatial.attend(
            queries.spatial, position_code, self.attention_bias(iof, in_frames)
        )
        spatial = self.over_time(self.unfold(spatial))
        temporal = self.temporal.attend(
            queries.temporal,
            self.unfold(position_code).mean(dim=2),
            self.attention_bias(self.unfold(iof).mean(dim=2), blocked),
        )
        return Queries(spatial.transpose(1, 2).flatten(0, 1), temporal)

    def sample(self, points: Tensor, memory: Sampler) -> tuple[Tensor, Tensor]:
        """(B * T, Q, G, P, c), and their means over the points (B, Q, G, T, c)."""
        point_samples, frame_samples = super().sample(points, memory)
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


@MODELS.register_module()
class STMixerTubeletDecoder(STMixerDecoder):
    """Refine tubelets: persons through the frames of a clip.

    The design is ours (docs/architecture.md). A tubelet has a spatial query and a box in each of the T frames, which sample
    their own frame, and one temporal query, which mixes these samples. All frames
    start from the same query and box.

    Args:
        frame_actions: Predict actions in each frame, not once for the clip.
        **kwargs: See :class:`STMixerDecoder`; ``num_queries`` counts tubelets.
    """

    output_type = TubeletStageOutput
    stage_type = STMixerTubeletStage

    def __init__(self, *, frame_actions: bool = False, **kwargs) -> None:
        super().__init__(**kwargs)
        for stage in self.stages:
            stage.frame_actions = frame_actions

    def start(self, boxes_xyzr: Tensor) -> tuple[Queries, Tensor]:
        """Folded spatial queries and boxes (B * T, Q, ...), temporal ones (B, Q, C)."""
        queries, folded = super().start(
            boxes_xyzr.repeat_interleave(self.num_frames, dim=0)
        )
        return queries._replace(temporal=queries.temporal[: boxes_xyzr.size(0)]), folded

    def fold(self, extra: ExtraQueries) -> ExtraQueries:
        """Folds boxes (B, D, K, 4) of the clip's K frames, as :meth:`start` does."""
        boxes_xyzr = extra.boxes_xyzr
        frames = torch.arange(self.num_frames, device=boxes_xyzr.device) + 0.5
        nearest = (frames * boxes_xyzr.size(2) / self.num_frames).long()
        spatial = extra.queries.spatial.repeat_interleave(self.num_frames, dim=0)
        boxes_xyzr = boxes_xyzr[:, :, nearest].transpose(1, 2).flatten(0, 1)
        queries = extra.queries._replace(spatial=spatial)
        return extra._replace(queries=queries, boxes_xyzr=boxes_xyzr)

    def query_vectors(self, queries: Queries) -> Tensor:
        """Means (B, Q, C) of the spatial queries over time."""
        return queries.spatial.unflatten(0, (-1, self.num_frames)).mean(dim=1)

    def make_memory(self, feats: Sequence[Tensor], strides: Sequence[float]) -> Sampler:
        """Samples each frame as a clip of its own."""
        return super().make_memory(
            [fold_time(feat).unsqueeze(2) for feat in feats], strides
        )
