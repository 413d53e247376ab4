"""The doors of a detector: parts that join its queries, necks with losses of their own.

Shapes: B clips, Q queries of the decoder, D further queries of a part, C channels,
k persons of a clip, n predictions of a clip.
"""

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from mmaction.structures import ActionDataSample
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from stmixer_mm.compat import exact_convolutions, stack_numbers
from stmixer_mm.models.data_preprocessor import move_together
from stmixer_mm.models.decoder.initial_boxes import FrameShapes
from stmixer_mm.models.decoder.query_decoder import ExtraQueries
from stmixer_mm.models.necks.levels import as_levels
from stmixer_mm.structures import DecoderOutput

Samples = Sequence[ActionDataSample]
# A clip, of which time_s is known, and what was found in it.
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
        """Of clips (B, 3, T_in, H, W)."""
        sides = chain(*(sample.metainfo['img_shape'] for sample in data_samples))
        sides = stack_numbers(sides, dtype=torch.long, device=inputs.device)
        frames = FrameShapes(sides.view(-1, 2), tuple(inputs.shape[-2:]))
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
            persons: The persons that they are matched to, (B, Q + D), on the host:
                i + 1 for the i-th of the clip, 0 for none, -1 for a query that counts
                nowhere.
        """
        return {}

    def enter(self, batch: Batch) -> ExtraQueries | None:
        """Further queries in prediction."""

    def finish(
        self, batch: Batch, seen: DecoderOutput, found: list[InstanceData]
    ) -> list[InstanceData]:
        """The predictions ``found`` of the head, with what the part knows of them."""
        return found

    def follow(
        self, predictions: Iterable[Prediction], head: nn.Module
    ) -> Iterable[Prediction]:
        """Predictions along a video, in order of time, with what the part adds."""
        return predictions


class Parts(list[QueryPart]):
    """The parts of a detector, asked one after the other."""

    @classmethod
    def of(cls, detector: nn.Module) -> 'Parts':
        return cls(part for part in detector.children() if isinstance(part, QueryPart))

    def check_feats(self, feats: Sequence[Tensor]) -> None:
        for part in self:
            part.check_feats(feats)

    def start_video(self) -> dict[str, object]:
        return {
            key: value for part in self for key, value in part.start_video().items()
        }

    def turns(self, batch: Batch) -> Iterable[Batch]:
        turns: Iterable[Batch] = [batch]
        for part in self:
            turns = chain.from_iterable(map(part.turns, turns))
        return turns

    def enter_training(self, batch: Batch) -> list[ExtraQueries]:
        """Those that learn together with the decoder's own queries come first."""
        extras = filter(None, [part.enter_training(batch) for part in self])
        return sorted(extras, key=lambda extra: extra.prefix)

    def loss(self, *seen_and_matched: object) -> dict[str, Tensor]:
        terms = [part.loss(*seen_and_matched) for part in self]
        return {name: value for part in terms for name, value in part.items()}

    def enter(self, batch: Batch) -> list[ExtraQueries]:
        return [*filter(None, [part.enter(batch) for part in self])]

    def finish(
        self, batch: Batch, seen: DecoderOutput, found: list[InstanceData]
    ) -> list[InstanceData]:
        for part in self:
            found = part.finish(batch, seen, found)
        return found


def match_groups(
    head: nn.Module, batch: Batch, seen: DecoderOutput, extras: Sequence[ExtraQueries]
) -> tuple[dict[str, Tensor], DecoderOutput, Tensor]:
    """Losses of what learns together: the decoder's own queries, then each prefix.

    Returns:
        The terms of ``head``, a :class:`.SetCriterion`, and the first of these groups
        with its persons, see :meth:`QueryPart.loss`.
    """
    others = [(one.prefix, one.persons.size(1)) for one in extras if one.prefix]
    count = seen.boxes_xyzr.size(1) - sum(size for _, size in others)
    known = [extra.persons.cpu() for extra in extras]
    known = torch.cat(known, dim=1) if known else None
    groups = [('', count), *others]
    terms, persons = head.loss_and_match(seen.stages, batch.data_samples, known, groups)
    return terms, seen.take(slice(count)), persons[:, :count]


def pad_clips(
    fields: Sequence[Sequence[Tensor]],
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Rows (k, ·) of each clip as (B, P, ·), P at least 1, with zeros behind them.

    Args:
        fields: For several kinds of rows, those of each clip.

    Returns:
        The fields, and which rows are padding, (B, P) bool, on the device and the host.
    """
    counts = np.array([len(rows) for rows in fields[0]])
    slots, ends = np.arange(max(1, *counts)), counts.cumsum()
    padding = slots >= counts[:, None]
    places = np.where(padding, ends[-1], slots + (ends - counts)[:, None])
    numbers = torch.from_numpy(places), torch.from_numpy(padding)
    places, on_device = move_together(numbers, fields[0][0].device)
    padded = [
        torch.cat((*rows, rows[0].new_zeros(1, *rows[0].shape[1:])))[places]
        for rows in fields
    ]
    return padded, on_device, numbers[1]


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
        """Weighted loss terms of ``feats``, which the neck made of the clip.

        Args:
            feats: Levels.
            inputs: The clip and the frames that follow it, (B, 3, T_in, H, W).
            extract: Clips to what the neck is given.
        """


def run_path(
    path: Sequence[nn.Module], inputs: Tensor
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Losses of the necks that have any, and the levels, of backbone and necks.

    Inputs are clips (B, 3, T_in, H, W), maybe with frames that follow them.
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
    lengths = [part.clip_len for part in path if isinstance(part, LearningNeck)]
    return inputs[:, :, : min(lengths, default=None)]
