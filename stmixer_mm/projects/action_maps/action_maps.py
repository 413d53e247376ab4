"""Maps of evidence for each action, and a decoder that averages them in its boxes.

Shapes: B clips, Q queries, C channels of the decoder, A actions, P slices of a box, T
frames, L levels of h x w cells.
"""

from collections.abc import Callable, Sequence

import torch
from mmengine.model import ModuleList, bias_init_with_prob
from torch import Tensor, nn

from stmixer_mm.errors import UserError
from stmixer_mm.models.boxes import xyzr_to_xyxy
from stmixer_mm.models.decoder.stage import STMixerStage
from stmixer_mm.models.decoder.stmixer_decoder import STMixerDecoder
from stmixer_mm.models.necks.levels import as_levels
from stmixer_mm.models.necks.projection import ChannelProjection3D
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import DecoderOutput, Queries, StageOutput


def overlap_shares(starts: Tensor, ends: Tensor, num_cells: int, cell: float) -> Tensor:
    """Shares of an interval in each of a row of cells.

    Args:
        starts, ends: (...,)
        num_cells: N, from 0 on.
        cell: Length of a cell.

    Returns:
        (..., N), whose sum is 1; 0 where the interval lies beside the row.
    """
    edges = torch.arange(num_cells, dtype=starts.dtype, device=starts.device) * cell
    stops = torch.minimum(ends.unsqueeze(-1), edges + cell)
    overlaps = (stops - torch.maximum(starts.unsqueeze(-1), edges)).clamp(min=0)
    return overlaps / overlaps.sum(dim=-1, keepdim=True).clamp(min=1e-6)


def box_means(level: Tensor, bboxes: Tensor, pad_shape: tuple[int, int]) -> Tensor:
    """Means of a level over the area of boxes in the frame.

    Jiang et al., "Acquisition of Localization Confidence", ECCV 2018, section 3.3, with
    cells of constant value; in slices of a box, each of its own maps, as in Dai et al.,
    "R-FCN", NIPS 2016, section 2.

    Args:
        level: (B, P, A, h, w), of clips of the size ``pad_shape`` (H, W), for P slices
            of a box from its top to its bottom.
        bboxes: (B, Q, 4), pixel x1, y1, x2, y2.

    Returns:
        (B, Q, A), the mean of the slices' means.
    """
    x1, y1, x2, y2 = bboxes.to(level.dtype).unbind(-1)
    parts, (lines, columns), (height, width) = (
        level.size(1),
        level.shape[-2:],
        pad_shape,
    )
    edges = torch.linspace(0, 1, parts + 1, dtype=level.dtype, device=level.device)
    edges = y1.unsqueeze(-1) + (y2 - y1).unsqueeze(-1) * edges
    of_lines = overlap_shares(edges[..., :-1], edges[..., 1:], lines, height / lines)
    of_columns = overlap_shares(x1, x2, columns, width / columns)
    return torch.einsum('bqph,bqw,bpahw->bqa', of_lines, of_columns, level) / parts


@MODELS.register_module()
class ActionMaps(ChannelProjection3D):
    """A projection whose levels have maps of evidence for each action as last channels.

    The maps are linear in the backbone's channels, which are standardised, so that few
    videos suffice to learn them.

    Args:
        num_actions: A.
        map_channels: Channels of the backbone's levels that maps read, finest first;
            the projection reads the first ``in_channels`` of them.
        num_parts: P, slices of a box from its top to its bottom, with maps of their own.
        dropout: Share of these channels that maps do without, in training.
        **kwargs: See :class:`.ChannelProjection3D`.
    """

    def __init__(
        self,
        *,
        num_actions: int,
        map_channels: Sequence[int],
        num_parts: int = 1,
        dropout: float = 0.0,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.maps = ModuleList(
            nn.Sequential(
                nn.BatchNorm3d(channels, affine=False),
                nn.Dropout3d(dropout),
                nn.Conv3d(channels, num_parts * num_actions, kernel_size=1),
            )
            for channels in map_channels
        )

    def init_weights(self) -> None:
        super().init_weights()
        for *_, evidence in self.maps:
            nn.init.zeros_(evidence.weight)
            nn.init.constant_(evidence.bias, bias_init_with_prob(0.01) / len(self.maps))

    def forward(self, feats: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """(B, map_channels[l], T, h, w) -> (B, out_channels + P A, T, h, w)"""
        feats = as_levels(feats)
        pairs = zip(feats, self.in_channels, strict=True)
        levels = super().forward([feat[:, :channels] for feat, channels in pairs])
        maps = [make(feat) for make, feat in zip(self.maps, feats, strict=True)]
        return [torch.cat(pair, dim=1) for pair in zip(levels, maps, strict=True)]

    def frame_steps(self) -> list[tuple[Callable[..., list[Tensor]], bool]]:
        """Each frame is seen alone, see the project ``streaming``."""
        return [(self, False)]


class ActionMapStage(STMixerStage):
    """A stage that finds persons: it has neither temporal queries nor an action branch."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        del self.temporal, self.action_branch

    def attend(
        self, queries: Queries, boxes_xyzr: Tensor, size: Tensor, blocked: Tensor | None
    ) -> Queries:
        position_code, iof = self.relate_boxes(boxes_xyzr, size)
        bias = self.attention_bias(iof, blocked)
        return queries._replace(
            spatial=self.spatial.attend(queries.spatial, position_code, bias)
        )

    def mix(
        self, queries: Queries, point_samples: Tensor, frame_samples: Tensor
    ) -> Queries:
        return queries._replace(
            spatial=self.spatial.mix(point_samples, queries.spatial)
        )

    def read_out(self, queries: Queries, boxes_xyzr: Tensor) -> StageOutput:
        """Persons and boxes; the decoder reads the actions from its maps."""
        return StageOutput(
            person_logits=self.person_branch(queries.spatial),
            action_logits=queries.spatial[..., :0],
            bboxes=xyzr_to_xyxy(boxes_xyzr),
        )


@MODELS.register_module()
class ActionMapDecoder(STMixerDecoder):
    """Find persons with queries, and read actions from :class:`ActionMaps`.

    An action is the mean of its map over the frames and in the box of a person.
    """

    stage_type = ActionMapStage

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.temporal_queries.requires_grad_(False)
        self.num_actions = self.num_classes - 1

    def strides_of(
        self, feats: Sequence[Tensor], pad_shape: tuple[int, int]
    ) -> Sequence[float]:
        return super().strides_of(
            [feat[:, : self.embed_dims] for feat in feats], pad_shape
        )

    def forward(
        self,
        feats: Sequence[Tensor],
        boxes_xyzr: Tensor,
        pad_shape: tuple[int, int],
        *args,
        **kwargs,
    ) -> DecoderOutput:
        levels, maps = zip(*map(self.split, feats), strict=True)
        output = super().forward(levels, boxes_xyzr, pad_shape, *args, **kwargs)
        maps = [
            level_maps.mean(dim=2).unflatten(1, (-1, self.num_actions))
            for level_maps in maps
        ]

        def read(stage: StageOutput) -> StageOutput:
            bboxes = stage.bboxes.detach()
            evidence = sum(box_means(level, bboxes, pad_shape) for level in maps)
            return stage._replace(action_logits=evidence)

        return output._replace(stages=[*map(read, output.stages)])

    def split(self, feat: Tensor) -> tuple[Tensor, Tensor]:
        """A level (B, C + P A, T, h, w) to that of queries and maps (B, P A, T, h, w)."""
        num_maps, extra = divmod(feat.size(1) - self.embed_dims, self.num_actions)
        if num_maps < 1 or extra:
            raise UserError(
                f'A level of the feature maps has {feat.size(1)} channels, not '
                f'model.decoder.embed_dims={self.embed_dims} and one or more maps for '
                f'each of {self.num_actions} actions; take the neck ActionMaps.'
            )
        return feat.split((self.embed_dims, num_maps * self.num_actions), dim=1)
