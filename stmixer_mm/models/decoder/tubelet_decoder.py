"""STMixer's decoder of tubelets: a box in every frame, one set of actions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stmixer_mm.models.decoder.query_decoder import ExtraQueries
from stmixer_mm.models.decoder.sampling.sampler import Sampler
from stmixer_mm.models.decoder.stmixer_decoder import STMixerDecoder
from stmixer_mm.models.decoder.tubelet_stage import STMixerTubeletStage
from stmixer_mm.models.folding import fold_time
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import Queries, TubeletStageOutput


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
