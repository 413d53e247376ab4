"""The head: a criterion, and predictions from the last stage.

Shapes: B clips, Q queries, A actions, n kept queries of a clip; [K]: of tubelets there
is a value for each of the K frames.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from stmixer_mm.errors import UserError, choose
from stmixer_mm.models.boxes import frame_scale
from stmixer_mm.models.heads.criterion import SetCriterion, in_float32
from stmixer_mm.models.heads.matching import score_persons
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import StageOutput

# Scores of a query, from its action scores (n, A) and its person score (n, 1).
SCORE_MODES = {
    'action': lambda actions, person: actions,
    'product': lambda actions, person: actions * person,
}


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
        fallback_topk: Where no query reaches it, keep this many of the best.
        score_mode: 'action' for action scores as they are, 'product' for action
            scores times person score.
        **kwargs: See :class:`.SetCriterion`.
    """

    output_type: type = StageOutput  # what it reads

    def __init__(
        self,
        *,
        score_thr: float = 0.6,
        fallback_topk: int = 0,
        score_mode: Literal['action', 'product'] = 'action',
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= score_thr <= 1:
            raise UserError(f'The head: score_thr must be in [0, 1], got {score_thr}.')
        self.score_thr = score_thr
        self.fallback_topk = fallback_topk
        self.score_actions = choose('score_mode', score_mode, SCORE_MODES)

    def predict(
        self, stages: Sequence[StageOutput], data_samples: Sequence[ActionDataSample]
    ) -> list[InstanceData]:
        """Predictions of the last stage for each clip, of which n queries are kept.

        ``bboxes`` (n, 4) are xyxy normalised by the frame without padding, ``scores``
        (n, num_classes) have the host's dummy column 0, ``person_scores`` (n,);
        ``queries`` (n,) are the places of the kept queries.
        """
        last = self.read(stages[-1], data_samples[0].metainfo.get('clip_len'))
        return [
            self.choose(self.score(type(last)(*one), sample.metainfo['img_shape']))
            for sample, *one in zip(data_samples, *last, strict=True)
        ]

    def read(self, stage: StageOutput, clip_len: int | None) -> StageOutput:
        """Predictions of a stage, float32; of tubelets, in the K frames of the clip."""
        return in_float32(stage)

    def score(self, stage: StageOutput, img_shape: tuple[int, int]) -> Detections:
        """Scores and boxes, of one clip or of several, whose frames are (h, w)."""
        person_scores = score_persons(stage.person_logits)
        logits = stage.action_logits
        actions = logits.sigmoid()
        if self.single_label:
            actions = F.pad(logits, (1, 0)).softmax(dim=-1)[..., 1:]
        of_query = self.score_queries(person_scores)
        of_query = of_query[(..., *[None] * (logits.dim() - of_query.dim()))]
        scale = frame_scale(img_shape, stage.bboxes)
        return Detections(
            person_scores=person_scores,
            action_scores=self.score_actions(actions, of_query),
            bboxes=torch.minimum(stage.bboxes.clamp(min=0), scale - 1) / scale,
        )

    def choose(self, found: Detections) -> InstanceData:
        """The queries of a clip that are kept, see :meth:`predict`."""
        query_scores = self.score_queries(found.person_scores)
        keep = (query_scores >= self.score_thr).nonzero().squeeze(1)
        if len(keep) == 0:
            number = min(self.fallback_topk, len(query_scores))
            keep = query_scores.topk(number).indices
        return InstanceData(
            bboxes=found.bboxes[keep],
            scores=F.pad(found.action_scores[keep], (1, 0)),
            person_scores=found.person_scores[keep],
            queries=keep,
        )

    def score_queries(self, person_scores: Tensor) -> Tensor:
        """Probability that each query is a person, (..., Q)."""
        return person_scores
