"""The head: a criterion, and predictions from the last stage.

Shapes: B clips, Q queries, A actions, n kept queries of a clip; [K]: of tubelets there
is a value for each of the K frames.
"""

from numbers import Integral, Real
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.models.boxes import frame_scales
from stmixer_mm.models.heads.criterion import Samples, SetCriterion, Stages
from stmixer_mm.models.heads.matching import score_persons
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import StageOutput


class Detections(NamedTuple):
    """Predictions of all queries, of one clip or [B] clips."""

    person_scores: Tensor  # ([B], Q, [K])
    action_scores: Tensor  # ([B], Q, A), or ([B], Q, K, A)
    bboxes: Tensor  # ([B], Q, [K], 4): xyxy, normalised by the frame, within it


@MODELS.register_module()
class STMixerHead(SetCriterion):
    """Predictions to losses, see :class:`.SetCriterion`, or to the persons kept.

    Args:
        score_thr: Keep queries whose person score reaches it, in [0, 1].
        fallback_topk: Best queries to keep where no query reaches it.
        score_mode: 'product' multiplies action scores by the person score.
        **kwargs: See :class:`.SetCriterion`.
    """

    output_type: type = StageOutput  # what it reads
    query_scores = 'person_scores'  # field of the scores by which queries are kept

    def __init__(
        self,
        *,
        score_thr: float = 0.6,
        fallback_topk: int = 0,
        score_mode: Literal['action', 'product'] = 'action',
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if not (isinstance(score_thr, Real) and 0 <= score_thr <= 1):
            raise UserError(
                f'score_thr={score_thr!r} of the head is no probability; set it to a '
                'number from 0 to 1.'
            )
        if not (isinstance(fallback_topk, Integral) and fallback_topk >= 0):
            raise UserError(
                f'fallback_topk={fallback_topk!r} of the head is no number of queries; '
                'set it to 0 or more.'
            )
        self.score_thr = score_thr
        self.fallback_topk = fallback_topk
        self.score_mode = score_mode

    def predict(self, stages: Stages, data_samples: Samples) -> list[InstanceData]:
        """Predictions of the last stage for each clip, of which n queries are kept.

        ``bboxes`` (n, 4) are xyxy normalised by the frame without padding, ``scores``
        (n, A + 1) have the host's dummy column 0; ``queries`` (n,) are their places.
        """
        last = self.read(stages[-1], data_samples[0].metainfo.get('clip_len'))
        shapes = [sample.metainfo['img_shape'] for sample in data_samples]
        return self.choose(self.score(last, frame_scales(shapes, last.bboxes)))

    def score(self, stage: StageOutput, scale: Tensor) -> Detections:
        """Scores and boxes; ``scale`` (..., 4) is w, h, w, h of the frames."""
        person_scores = score_persons(stage.person_logits)
        actions = stage.action_logits.sigmoid()
        if self.single_label:
            actions = F.pad(stage.action_logits, (1, 0)).softmax(dim=-1)[..., 1:]
        if self.score_mode == 'product':
            query_scores = self.score_queries(person_scores)
            while query_scores.dim() < actions.dim():
                query_scores = query_scores.unsqueeze(-1)
            actions = actions * query_scores
        bboxes = torch.minimum(stage.bboxes.clamp(min=0), scale - 1) / scale
        return Detections(person_scores, actions, bboxes)

    def choose(self, detections: Detections) -> list[InstanceData]:
        """The queries of B clips that are kept, see :meth:`predict`.

        The host waits for the device once.
        """
        query_scores = self.score_queries(detections.person_scores)
        num_queries = query_scores.size(1)
        selections = [*map(self.keep, query_scores.cpu())]
        rows = torch.cat([num_queries * n + idx for n, idx in enumerate(selections)])
        rows = rows.to(query_scores.device, non_blocking=True)
        fields = detections._asdict() | {self.query_scores: query_scores}
        fields['scores'] = F.pad(fields.pop('action_scores'), (1, 0))
        fields = {name: values.flatten(0, 1)[rows] for name, values in fields.items()}
        persons = InstanceData(**fields, queries=rows % num_queries)
        ends = np.cumsum([*map(len, selections)])
        return [
            persons[end - len(selection) : end]
            for end, selection in zip(ends, selections, strict=True)
        ]

    def keep(self, query_scores: Tensor) -> Tensor:
        """Numbers of the queries of a clip that are kept, from their scores (Q,)."""
        indices = (query_scores >= self.score_thr).nonzero().squeeze(1)
        if len(indices):
            return indices
        return query_scores.topk(min(self.fallback_topk, len(query_scores))).indices

    def score_queries(self, person_scores: Tensor) -> Tensor:
        """Probability that each query is a person, (..., Q)."""
        return person_scores
