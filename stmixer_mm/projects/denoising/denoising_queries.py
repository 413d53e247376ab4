"""Queries of a training step that start from noised persons and their actions.

Shapes: B clips, Q queries of the decoder, G groups, P slots of a group (the most
persons of a clip, or 1), D = G P further queries, C channels, A actions; with tubelets,
[K] frames of a clip.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from torch import Tensor, nn

from stmixer_mm.models.boxes import xyxy_to_xyzr
from stmixer_mm.models.data_preprocessor import move_together
from stmixer_mm.models.decoder.query_decoder import ExtraQueries
from stmixer_mm.models.parts import Batch, QueryPart
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import PRESENT, Queries, StageOutput, TubeletStageOutput

MIN_SIZE = 1.0  # pixels: a box clipped to nothing has no logarithm


@MODELS.register_module()
class DenoisingQueries(QueryPart):
    """Groups of noised persons, which the decoder learns to put right.

    Li et al., "DN-DETR: Accelerate DETR Training by Introducing Query DeNoising",
    CVPR 2022. The decoder's own queries see none of them; a group sees those queries
    and itself. Used only in training.

    Args:
        num_groups: G, copies of each person, noised independently.
        box_noise: Centres move by up to this share of half the box, sizes change by
            up to this share, in [0, 1).
        label_noise: Probability that an action of a copy is replaced by one drawn at
            random, in [0, 1].
        **kwargs: See :class:`.QueryPart`.
    """

    output_type = StageOutput  # persons of keyframes, not tubelets

    def __init__(
        self,
        *,
        num_groups: int = 5,
        box_noise: float = 0.4,
        label_noise: float = 0.2,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.num_groups = num_groups
        self.box_noise = box_noise
        self.label_noise = label_noise
        self.spatial_labels = nn.Linear(self.num_classes - 1, self.embed_dims)
        self.temporal_labels = nn.Linear(self.num_classes - 1, self.embed_dims)

    def init_weights(self) -> None:
        for embedding in (self.spatial_labels, self.temporal_labels):
            nn.init.normal_(embedding.weight)
            nn.init.normal_(embedding.bias)
        super().init_weights()

    def enter_training(self, batch: Batch) -> ExtraQueries:
        clips = [sample.gt_instances for sample in batch.data_samples]
        fields = {
            name: torch.cat([instances[name] for instances in clips])
            for name in ('bboxes', 'labels', 'states')
            if name in clips[0]
        }
        truth = self.get_truth(InstanceData(**fields))
        counts = [len(instances.bboxes) for instances in clips]
        bboxes, actions, persons, padding = collect_persons(
            *(values.split(counts) for values in truth), batch.frames.img_shapes
        )
        group_size = persons.size(1)
        # Queries of a group lie side by side.
        bboxes, actions, persons, padding = (
            values.repeat(1, self.num_groups, *[1] * (values.dim() - 2))
            for values in (bboxes, actions, persons, padding)
        )
        actions = noise_actions(actions, self.label_noise)
        queries = Queries(
            *(
                F.layer_norm(embedding(actions), (self.embed_dims,))
                for embedding in (self.spatial_labels, self.temporal_labels)
            )
        )
        group = torch.arange(padding.size(1), device=padding.device) // group_size
        return ExtraQueries(
            queries=queries,
            boxes_xyzr=xyxy_to_xyzr(noise_boxes(bboxes, self.box_noise)),
            blocked=(group[:, None] != group) | padding[:, None],
            hidden=torch.ones_like(padding),
            persons=persons,
            prefix='dn.',
        )

    def get_truth(self, persons: InstanceData) -> tuple[Tensor, Tensor]:
        """Boxes (k, [K], 4) and labels (k, A + 1) of persons of any clips."""
        return persons.bboxes, persons.labels


@MODELS.register_module()
class DenoisingTubelets(DenoisingQueries):
    """The same for tubelets: each frame's box has noise of its own.

    Where a person has no box, its copies start from that of the nearest frame; a copy
    starts from all actions of the clip.
    """

    output_type = TubeletStageOutput

    def get_truth(self, persons: InstanceData) -> tuple[Tensor, Tensor]:
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Persons of a batch, padded by whole frames without an action.

    Args:
        bboxes: Of each clip, (k, [K], 4).
        labels: Of each clip, (k, A + 1).
        img_shapes: (h, w) of each clip without padding, (B, 2).

    Returns:
        Pixel boxes (B, P, [K], 4), multi-hot actions (B, P, A), on the host persons
        (B, P), i + 1 for the i-th of the clip, -1 for padding, and padding (B, P) bool.
    """
    (bboxes, labels), padding, on_host = pad_clips([bboxes, labels])
    bboxes, labels = bboxes.float(), labels.float()
    persons = torch.arange(1, padding.size(1) + 1).where(~on_host, -1)
    unit_dims = [1] * (bboxes.dim() - 2)
    whole_frames = F.pad(img_shapes.float().flip(-1), (2, 0)).view(-1, *unit_dims, 4)
    bboxes = torch.where(padding.view(*padding.shape, *unit_dims), whole_frames, bboxes)
    return bboxes, labels[..., 1:], persons, padding


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
