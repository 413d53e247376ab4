"""Queries of a training step that start from noised persons and their actions.

Shapes: B clips, Q queries of the decoder, G groups, P slots of a group (the most
persons of a clip, or 1), D = G P further queries, C channels, A actions; with tubelets,
[K] frames of a clip.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from stmixer_mm.errors import UserError
from stmixer_mm.models.boxes import xyxy_to_xyzr
from stmixer_mm.models.decoder.query_decoder import ExtraQueries
from stmixer_mm.models.decoder.stage import Queries, StageOutput
from stmixer_mm.models.decoder.tubelet_stage import TubeletStageOutput
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import PRESENT

MIN_SIZE = 1.0  # pixels: a box clipped to nothing has no logarithm


class NoisedQueries(NamedTuple):
    """Noised copies of the persons of a batch."""

    extra: ExtraQueries  # D of them
    persons: Tensor  # (B, D) long: the person each copies, -1 for padding


@MODELS.register_module()
class DenoisingQueries(BaseModule):
    """Groups of noised persons, which the decoder learns to put right.

    Li et al., "DN-DETR: Accelerate DETR Training by Introducing Query DeNoising",
    CVPR 2022. The decoder's own queries see none of them; a group sees those queries
    and itself. Used only in training.

    Args:
        embed_dims: C; the detector sets it.
        num_queries: Q; the detector sets it.
        num_classes: A + 1; the detector sets it.
        num_groups: G, copies of each person, noised independently.
        box_noise: Centres move by up to this share of half the box, sizes change by
            up to this share, in [0, 1).
        label_noise: Probability that an action of a copy is replaced by one drawn at
            random, in [0, 1].
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.

    Raises:
        UserError: An argument is out of range.
    """

    output_type = StageOutput  # persons of keyframes, not tubelets

    def __init__(
        self,
        *,
        embed_dims: int,
        num_queries: int,
        num_classes: int,
        num_groups: int = 5,
        box_noise: float = 0.4,
        label_noise: float = 0.2,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if num_groups < 1 or not 0 <= box_noise < 1 or not 0 <= label_noise <= 1:
            raise UserError(
                f'DenoisingQueries takes num_groups={num_groups} of 1 or more, box_noise='
                f'{box_noise} in [0, 1) and label_noise={label_noise} in [0, 1]; correct '
                'the one that is not.'
            )
        self.embed_dims = embed_dims
        self.num_queries = num_queries
        self.num_classes = num_classes
        self.num_groups = num_groups
        self.box_noise = box_noise
        self.label_noise = label_noise
        self.spatial_labels = nn.Linear(num_classes - 1, embed_dims)
        self.temporal_labels = nn.Linear(num_classes - 1, embed_dims)

    def init_weights(self) -> None:
        for embedding in (self.spatial_labels, self.temporal_labels):
            nn.init.normal_(embedding.weight)
            nn.init.normal_(embedding.bias)
        super().init_weights()

    def forward(
        self, data_samples: Sequence[ActionDataSample], img_shapes: Tensor
    ) -> NoisedQueries:
        """
        Args:
            data_samples: The ground truth.
            img_shapes: (h, w) of each clip without padding, (B, 2).
        """
        described = [self.describe(sample.gt_instances) for sample in data_samples]
        bboxes, actions, persons = collect_persons(
            *zip(*described, strict=True), img_shapes
        )
        # Queries of a group lie side by side.
        bboxes, actions, persons = (
            values.repeat(1, self.num_groups, *[1] * (values.dim() - 2))
            for values in (bboxes, actions, persons)
        )
        actions = noise_actions(actions, self.label_noise)
        queries = Queries(
            *(
                F.layer_norm(embedding(actions), (self.embed_dims,))
                for embedding in (self.spatial_labels, self.temporal_labels)
            )
        )
        extra = ExtraQueries(
            queries=queries,
            boxes_xyzr=xyxy_to_xyzr(noise_boxes(bboxes, self.box_noise)),
            blocked=block_groups(
                self.num_queries, self.num_groups, persons.size(1) // self.num_groups
            ).to(img_shapes.device),
        )
        return NoisedQueries(extra, persons)

    def describe(self, persons: InstanceData) -> tuple[Tensor, Tensor]:
        """Boxes (k, [K], 4) and labels (k, A + 1) of the persons of a clip."""
        return persons.bboxes, persons.labels


@MODELS.register_module()
class DenoisingTubelets(DenoisingQueries):
    """The same for tubelets: each frame's box has noise of its own.

    Where a person has no box, its copies start from that of the nearest frame; a copy
    starts from all actions of the clip.
    """

    output_type = TubeletStageOutput

    def describe(self, persons: InstanceData) -> tuple[Tensor, Tensor]:
        labels = persons.labels
        if labels.dim() == 3:
            labels = (labels * (persons.states == PRESENT)[..., None]).amax(dim=1)
        frames = torch.arange(persons.states.size(1), device=persons.states.device)
        gaps = (frames[:, None] - frames).abs() + 0.0
        gaps = gaps.where((persons.states == PRESENT)[:, None], torch.inf)
        nearest = gaps.argmin(dim=-1)[..., None].expand_as(persons.bboxes)
        return persons.bboxes.gather(1, nearest), labels


def collect_persons(
    bboxes: Sequence[Tensor], labels: Sequence[Tensor], img_shapes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Persons of a batch, padded by whole frames without an action.

    Args:
        bboxes: Of each clip, (k, [K], 4).
        labels: Of each clip, (k, A + 1).
        img_shapes: (h, w) of each clip without padding, (B, 2).

    Returns:
        Pixel boxes (B, P, [K], 4), multi-hot actions (B, P, A) and which person it is,
        -1 for padding, (B, P).
    """
    counts = [len(each) for each in bboxes]
    slots = torch.arange(max(1, *counts), device=img_shapes.device)
    taken = slots < slots.new_tensor(counts)[:, None]
    of_persons = torch.cat(bboxes)
    whole_frames = F.pad(img_shapes.float().flip(-1), (2, 0))
    whole_frames = whole_frames.view(-1, *[1] * (of_persons.dim() - 1), 4)
    bboxes = whole_frames.repeat(1, len(slots), *of_persons.shape[1:-1], 1)
    bboxes[taken] = of_persons.to(bboxes)
    labels = torch.cat(labels)[:, 1:].to(bboxes)
    actions = labels.new_zeros(*taken.shape, labels.size(-1))
    actions[taken] = labels
    return bboxes, actions, torch.where(taken, slots, -1)


def noise_boxes(bboxes: Tensor, box_noise: float) -> Tensor:
    """Shift centres and scale sizes at random; sizes stay positive.

    Args:
        bboxes: Pixel xyxy, (..., 4).
        box_noise: See :class:`DenoisingQueries`.
    """
    top_left, bottom_right = bboxes.split(2, dim=-1)
    size = (bottom_right - top_left).clamp(min=MIN_SIZE)
    shift, scale = (2 * torch.rand_like(bboxes) - 1).mul(box_noise).split(2, dim=-1)
    centre = (top_left + bottom_right) / 2 + shift * size / 2
    half_size = (1 + scale) * size / 2
    return torch.cat((centre - half_size, centre + half_size), dim=-1)


def noise_actions(actions: Tensor, label_noise: float) -> Tensor:
    """Replace each action, with this probability, by one drawn at random.

    Args:
        actions: Multi-hot, (B, D, A).
        label_noise: See :class:`DenoisingQueries`.
    """
    replaced = (actions > 0) & (torch.rand_like(actions) < label_noise)
    drawn = torch.randint_like(actions, actions.size(-1)).long()
    # A sum of one-hots: a replacement is 1, whatever else is drawn for the query.
    noised = actions.masked_fill(replaced, 0)
    return noised.scatter_add(-1, drawn, replaced.to(actions)).clamp(max=1)


def block_groups(num_queries: int, num_groups: int, group_size: int) -> Tensor:
    """Who must not attend to whom.

    Returns:
        (Q + D, Q + D) bool: True from an own query to a noised one, and from a noised
        one to those of other groups.
    """
    group = torch.arange(num_groups).repeat_interleave(group_size) + 1
    group = F.pad(group, (num_queries, 0))  # the own queries are group 0
    return (group[:, None] != group) & (group != 0)
