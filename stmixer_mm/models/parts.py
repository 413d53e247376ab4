"""The doors of a detector: parts that join its queries, necks with losses of their own.

Shapes: B clips, Q queries of the decoder, D further queries of a part, C channels,
k persons of a clip, n predictions of a clip.
"""

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from mmaction.structures import ActionDataSample
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from stmixer_mm.compat import exact_convolutions
from stmixer_mm.models.decoder.initial_boxes import FrameShapes
from stmixer_mm.models.decoder.query_decoder import ExtraQueries
from stmixer_mm.models.necks.levels import as_levels
from stmixer_mm.structures import DecoderOutput


class Batch(NamedTuple):
    """Clips, as the parts of a detector see them."""

    feats: Sequence[Tensor]  # L levels (B, C, T, H_l, W_l), finest first
    data_samples: Sequence[ActionDataSample]  # in training with the ground truth
    frames: FrameShapes

    @classmethod
    def of(
        cls,
        feats: Sequence[Tensor],
        inputs: Tensor,
        data_samples: Sequence[ActionDataSample],
    ) -> 'Batch':
        """Of clips (B, 3, T_in, H, W)."""
        img_shapes = [sample.metainfo['img_shape'] for sample in data_samples]
        img_shapes = torch.tensor(img_shapes, device=inputs.device)
        frames = FrameShapes(img_shapes, tuple(inputs.shape[-2:]))
        return cls(feats, data_samples, frames)

    def clips(self, which: slice) -> 'Batch':
        """Some of the clips."""
        return Batch(
            [feat[which] for feat in self.feats],
            self.data_samples[which],
            self.frames._replace(img_shapes=self.frames.img_shapes[which]),
        )


class QueryPart(BaseModule):
    """A part that adds queries, losses or fields of predictions to a detector.

    :class:`.STMixer` builds each from a config of its own, ``model.<name>``, and calls
    the methods below, which do nothing by default.

    Args:
        embed_dims: C; the detector sets it, as all sizes.
        num_queries: Q.
        num_classes: A + 1.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.
    """

    # Stage outputs that it can read, such as StageOutput; None for all.
    output_type: type | None = None

    def __init__(
        self,
        *,
        embed_dims: int,
        num_queries: int,
        num_classes: int,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.embed_dims = embed_dims
        self.num_queries = num_queries
        self.num_classes = num_classes

    def check_feats(self, feats: Sequence[Tensor]) -> None:
        """Raise ``UserError`` for levels that do not fit; only shapes matter."""

    def start_video(self) -> dict[str, object]:
        """Fields of the first sample of a video; the part sets them for the next."""
        return {}

    def turns(self, batch: Batch) -> Iterable[Batch]:
        """A training batch in the parts that the detector sees one after another."""
        return [batch]

    def enter_training(self, batch: Batch) -> ExtraQueries | None:
        """Further queries with their ``persons``."""

    def loss(
        self, batch: Batch, seen: DecoderOutput, persons: Tensor
    ) -> dict[str, Tensor]:
        """Weighted loss terms.

        Args:
            batch: The clips.
            seen: The decoder's own queries, then further ones without a ``prefix``.
            persons: The persons that they are matched to, (B, Q + D): i + 1 for the
                i-th of the clip, 0 for none, -1 for a query that counts nowhere.
        """
        return {}

    def enter(self, batch: Batch) -> ExtraQueries | None:
        """Further queries in prediction."""

    def finish(
        self, batch: Batch, seen: DecoderOutput, found: list[InstanceData]
    ) -> list[InstanceData]:
        """Predictions with what the part knows of them.

        Args:
            batch: The clips.
            seen: All queries.
            found: See :meth:`.STMixerHead.predict`.
        """
        return found


class LearningNeck(BaseModule, metaclass=ABCMeta):
    """A neck with a loss of its own, which may use frames that follow the clip.

    ``clip_len`` is the number of frames of the clip; what follows is for the loss.
    """

    clip_len: int

    @abstractmethod
    def loss(
        self,
        feats: Sequence[Tensor],
        inputs: Tensor,
        extract: Callable[[Tensor], Tensor | Sequence[Tensor]],
    ) -> dict[str, Tensor]:
        """Weighted loss terms.

        Args:
            feats: What the neck made of the clip.
            inputs: The clip and the frames that follow it, (B, 3, T_in, H, W).
            extract: Clips to what the neck is given.
        """


def run_path(
    path: Sequence[nn.Module], inputs: Tensor
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Losses of the necks that have any, and the levels.

    Args:
        path: A backbone and necks, in the order in which they run.
        inputs: Clips (B, 3, T_in, H, W), maybe with frames that follow them.
    """
    losses, feats = {}, clips_alone(path, inputs)
    with exact_convolutions(inputs.device.type):
        for place, part in enumerate(path):
            feats = part(feats)
            if isinstance(part, LearningNeck):
                losses |= part.loss(feats, inputs, nn.Sequential(*path[:place]))
    return losses, as_levels(feats)


def clips_alone(path: Sequence[nn.Module], inputs: Tensor) -> Tensor:
    """Clips without the frames that follow them."""
    necks = [part for part in path if isinstance(part, LearningNeck)]
    return inputs[:, :, : min((neck.clip_len for neck in necks), default=None)]


def in_turns(parts: Sequence[QueryPart], batch: Batch) -> Iterable[Batch]:
    """A training batch as its parts want it seen, see :meth:`QueryPart.turns`."""
    turns: Iterable[Batch] = [batch]
    for part in parts:
        turns = chain.from_iterable(map(part.turns, turns))
    return turns


def sort_extras(extras: Iterable[ExtraQueries | None]) -> list[ExtraQueries]:
    """Further queries, first those that learn together with the decoder's own."""
    return sorted(filter(None, extras), key=lambda extra: extra.prefix)


def split_extras(
    seen: DecoderOutput, extras: Sequence[ExtraQueries], num_queries: int
) -> list[tuple[str, DecoderOutput, Tensor | None]]:
    """What learns together, the decoder's own queries first.

    Args:
        seen: Of Q queries and further ones.
        extras: From :func:`sort_extras`.
        num_queries: Q.

    Returns:
        Prefix of the losses, queries, and the persons of the last of these.
    """
    known = [extra.persons for extra in extras if not extra.prefix]
    count = num_queries + sum(persons.size(1) for persons in known)
    persons = torch.cat(known, dim=1) if known else None
    groups = [('', seen.take(slice(count)), persons)]
    for extra in extras[len(known) :]:
        first, count = count, count + extra.persons.size(1)
        groups.append((extra.prefix, seen.take(slice(first, count)), extra.persons))
    return groups
