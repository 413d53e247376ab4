"""The head of tubelets: matching, losses and predictions in the frames of a clip.

Shapes: B clips, Q tubelets, T frames of the feature maps, K frames of a clip, A
actions.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.models.heads.criterion import in_float32, sample_name
from stmixer_mm.models.heads.matching import TubeletCost
from stmixer_mm.models.heads.stmixer_head import Detections, STMixerHead
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import TubeletStageOutput

PRESENCE = 0.5  # person score from which a tubelet takes its person to be in a frame


@MODELS.register_module()
class STMixerTubeletHead(STMixerHead):
    """Match tubelets to persons through a clip.

    Predictions in the T frames of the feature maps are resampled to the clip's K
    frames (:func:`at_clip_frames`), and compared there with persons
    (``gt_instances``): ``bboxes`` (k, K, 4) in pixels, multi-hot ``labels`` (k, A + 1),
    and ``states`` (k, K), 1 where a person has a box, 0 where it is not there, -1 where
    that is unknown; each person has a box somewhere. Boxes are learnt where there is
    one, person scores in all frames but unknown ones, and actions once per tubelet, or,
    if the decoder has ``frame_actions``, from ``labels`` (k, K, A + 1) where there is a
    box. A tubelet without a person is background in each frame where any state is
    known.

    Args:
        assigner: One with match costs, which must be a :class:`.TubeletCost`.
        score_thr: Keep tubelets whose ``tubelet_scores`` reach it, in [0, 1].
        **kwargs: See :class:`STMixerHead`; losses of boxes are means over the boxes in
            all frames.
    """

    output_type = TubeletStageOutput
    box_dims, box_shape = 3, '(k, K, 4), a box in each frame of the clip'

    def check_parts(self) -> None:
        super().check_parts()
        costs = getattr(self.assigner, 'match_costs', ())
        if not any(isinstance(cost, TubeletCost) for cost in costs):
            raise UserError(
                f'The assigner {type(self.assigner).__name__} does not match tubelets; '
                'take mmdet.HungarianAssigner with match_costs of type TubeletCost.'
            )

    def check_truth(self, sample: ActionDataSample) -> None:
        truth, clip_len = sample.gt_instances, sample.metainfo['clip_len']
        if truth.bboxes.dim() == self.box_dims:
            shapes = truth.bboxes.shape[:2], truth.states.shape
            if any(shape != (len(truth.labels), clip_len) for shape in shapes):
                raise UserError(
                    f'{sample_name(sample)} has {len(truth.labels)} persons in a clip '
                    f'of {clip_len} frames, but boxes for {tuple(shapes[0])} and states '
                    f'for {tuple(shapes[1])} of these; give each person both in each '
                    'frame.'
                )
        super().check_truth(sample)

    def loss_and_match(
        self,
        stages: Sequence[TubeletStageOutput],
        data_samples: Sequence[ActionDataSample],
        known: Tensor | None = None,
        prefix: str = '',
    ) -> tuple[dict[str, Tensor], Tensor]:
        """See :meth:`.SetCriterion.loss_and_match`."""
        by_frame = stages[0].action_logits.dim() == 4
        for sample in data_samples:
            if (sample.gt_instances.labels.dim() == 3) != by_frame:
                raise UserError(
                    f'The persons of {sample_name(sample)} have labels '
                    f'{"of the clip" if by_frame else "in each frame"} but the decoder '
                    f'has frame_actions={by_frame}; set frame_actions of the decoder '
                    'and of LocateTubelets alike.'
                )
        clip_len = data_samples[0].metainfo['clip_len']
        stages = [self.read(stage, clip_len) for stage in stages]
        return super().loss_and_match(stages, data_samples, known, prefix)

    def read(self, stage: TubeletStageOutput, clip_len: int) -> TubeletStageOutput:
        return at_clip_frames(stage, clip_len)

    def choose(self, found: Detections) -> InstanceData:
        """The tubelets of a clip that are kept, n of them.

        ``bboxes`` (n, K, 4) are xyxy normalised by the frame without padding,
        ``person_scores`` (n, K) are those in each frame, ``scores`` (n, num_classes),
        or (n, K, num_classes) with the decoder's ``frame_actions``, have the host's
        dummy column 0, ``tubelet_scores`` (n,) are the mean person scores where the
        person is; ``queries`` (n,) are the places of the kept tubelets.
        """
        kept = super().choose(found)
        kept.tubelet_scores = self.score_queries(kept.person_scores)
        return kept

    def score_queries(self, person_scores: Tensor) -> Tensor:
        """Mean person score where the person is, at least in the best frame."""
        best = person_scores.amax(dim=-1, keepdim=True)
        present = person_scores >= best.clamp(max=PRESENCE)
        return (person_scores * present).sum(dim=-1) / present.sum(dim=-1)


def at_clip_frames(output: TubeletStageOutput, clip_len: int) -> TubeletStageOutput:
    """Logits and boxes in each frame of a clip, float32.

    Frame t of the feature maps stands for the time (t + 1/2) * K / T - 1/2 of the clip,
    the middle of its share. Linear in between; before the first and behind the last
    they stay as they are.

    Args:
        output: Of T frames.
        clip_len: K.
    """

    def resample(values: Tensor) -> Tensor:  # (B, Q, T, n)
        series = values.flatten(0, 1).transpose(1, 2)
        series = F.interpolate(series, clip_len, mode='linear', align_corners=False)
        return series.transpose(1, 2).unflatten(0, values.shape[:2])

    output = in_float32(output)
    action_logits = output.action_logits
    if action_logits.dim() == 4:
        action_logits = resample(action_logits)
    return TubeletStageOutput(
        resample(output.person_logits), action_logits, resample(output.bboxes)
    )
