"""The head of tubelets: matching, losses and predictions in the frames of a clip.

Shapes: B clips, Q tubelets, T frames of the feature maps, K frames of a clip, A
actions.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from stmixer_mm.models.heads.criterion import in_float32
from stmixer_mm.models.heads.stmixer_head import STMixerHead
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

    Predictions are as those of :class:`STMixerHead`, with ``bboxes`` (n, K, 4),
    ``person_scores`` (n, K), with ``frame_actions`` ``scores`` (n, K, num_classes), and
    ``tubelet_scores`` (n,), the mean person scores where the person is.

    Args:
        **kwargs: See :class:`STMixerHead`; the assigner's cost is a
            :class:`.TubeletCost`, ``score_thr`` is of ``tubelet_scores``, and losses of
            boxes are means over the boxes in all frames.
    """

    output_type = TubeletStageOutput
    query_scores = 'tubelet_scores'
    box_dims = 3

    def read(self, stage: TubeletStageOutput, clip_len: int) -> TubeletStageOutput:
        return at_clip_frames(stage, clip_len)

    def score_queries(self, person_scores: Tensor) -> Tensor:
        """Mean person score where the person is, at least in the best frame."""
        best = person_scores.amax(dim=-1, keepdim=True)
        present = person_scores >= best.clamp(max=PRESENCE)
        return (person_scores * present).sum(dim=-1) / present.sum(dim=-1)


def at_clip_frames(output: TubeletStageOutput, clip_len: int) -> TubeletStageOutput:
    """Logits and boxes of T frames in each of the K = ``clip_len`` frames, float32.

    Frame t of the feature maps stands for the time (t + 1/2) * K / T - 1/2 of the clip,
    the middle of its share. Linear in between, constant beyond the first and last.
    """

    def resample(values: Tensor) -> Tensor:  # ([S], B, Q, T, n)
        series = values.flatten(0, -3).transpose(1, 2)
        series = F.interpolate(series, clip_len, mode='linear', align_corners=False)
        return series.transpose(1, 2).unflatten(0, values.shape[:-2])

    output = in_float32(output)
    action_logits = output.action_logits
    if action_logits.dim() == output.bboxes.dim():
        action_logits = resample(action_logits)
    return TubeletStageOutput(
        resample(output.person_logits), action_logits, resample(output.bboxes)
    )


def finds_tubelets(model: nn.Module) -> bool:
    """True for a model that finds the boxes of persons in all frames of a clip."""
    return isinstance(getattr(model, 'head', None), STMixerTubeletHead)
