"""Parts that join the queries of a detector.

Shapes: B clips, Q queries of the decoder, C channels, n predictions of a clip.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from mmaction.structures import ActionDataSample
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from stmixer_mm.compat import stack_numbers
from stmixer_mm.models.decoder.initial_boxes import FrameShapes
from stmixer_mm.models.decoder.query_decoder import ExtraQueries
from stmixer_mm.structures import DecoderOutput

Samples = Sequence[ActionDataSample]
# A clip, of which time_s is known, and the persons in it.
Prediction = tuple[object, InstanceData]


class Batch(NamedTuple):
    """Clips, as the parts of a detector see them."""

    feats: Sequence[Tensor]  # L levels (B, C, T, H_l, W_l), finest first
    data_samples: Samples  # in training with the ground truth
    frames: FrameShapes

    @classmethod
    def of(
        cls, feats: Sequence[Tensor], inputs: Tensor, data_samples: Samples
    ) -> 'Batch':
        """The batch of clips (B, 3, T_in, H, W)."""
        sides = chain(*(sample.metainfo['img_shape'] for sample in data_samples))
        sides = stack_numbers(sides, dtype=torch.long, device=inputs.device)
        frames = FrameShapes(sides.view(-1, 2), tuple(inputs.shape[-2:]))
        return cls(feats, data_samples, frames)


class QueryPart(BaseModule):
    """A part that adds queries, losses or fields of predictions to a detector.

    :class:`.STMixer` builds each from a config of its own, ``model.<name>``, and calls
    the methods below, which do nothing by default.

    Args:
        embed_dims: C; the detector sets it, as all sizes.
        num_queries: Q.
        num_classes: A + 1.
    """

    # Stage outputs that it can read, such as StageOutput; None for all.
    output_type: type | None = None

    def __init__(self, *, embed_dims: int, num_queries: int, num_classes: int) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.num_queries = num_queries
        self.num_classes = num_classes

    def check_feats(self, feats: Sequence[Tensor]) -> None:
        """Raise ``UserError`` for levels that do not fit; only shapes matter."""

    def enter_training(self, batch: Batch) -> ExtraQueries | None:
        """Further queries of a training step."""

    def loss(
        self, batch: Batch, outputs: DecoderOutput, persons: Tensor
    ) -> dict[str, Tensor]:
        """Weighted loss terms.

        Args:
            batch: The clips.
            outputs: The decoder's own queries.
            persons: The persons that they are matched to, (B, Q), on the host: i + 1
                for the i-th of the clip, 0 for none, -1 for a query that counts nowhere.
        """
        return {}

    def finish(
        self, batch: Batch, outputs: DecoderOutput, predictions: list[InstanceData]
    ) -> list[InstanceData]:
        """The predictions of the head, with what the part adds to them."""
        return predictions

    def follow(
        self, predictions: Iterable[Prediction], head: nn.Module
    ) -> Iterable[Prediction]:
        """Predictions along a video, in order of time, with what the part adds."""
        return predictions
