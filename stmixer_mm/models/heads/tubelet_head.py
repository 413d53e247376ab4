"""The head of tubelets: matching, losses and predictions in the frames of a clip.

Shapes: B clips, Q tubelets, T frames of the feature maps, K frames of a clip, A
actions.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from stmixer_mm.models.decoder.tubelet_stage import TubeletStageOutput
from stmixer_mm.models.heads.stmixer_head import STMixerHead, in_float32
from stmixer_mm.registry import MODELS

PRESENCE = 0.5  # person score from which a tubelet holds its person to be in a frame


@MODELS.register_module()
class STMixerTubeletHead(STMixerHead):
    """Match tubelets to persons through a clip.

    What tubelets say in the T frames of the feature maps is taken to the clip's K
    frames (:func:`at_clip_frames`), and compared there with persons
    (``gt_instances``): ``bboxes`` (k, K, 4) in pixels, multi-hot ``labels`` (k, A + 1),
    and ``states`` (k, K), 1 where a person has a box, 0 where it is not there, -1 where
    that is unknown. Boxes are learnt where there is one, person scores in all frames
    but unknown ones, actions once for a tubelet. A tubelet without a person is
    background in each frame where anybody's state is known.

    Args:
        assigner: One by match costs, which are a :class:`.TubeletCost`.
        score_thr: Keep tubelets whose ``tubelet_scores`` reach it, in [0, 1].
        **kwargs: Of :class:`STMixerHead`; losses of boxes are means over the boxes in
            all frames.
    """

    output_type = TubeletStageOutput
    box_dims, box_shape = 3, '(k, K, 4), a box in each frame of the clip'

    def loss(
        self,
        outputs: Sequence[TubeletStageOutput],
        data_samples: Sequence[ActionDataSample],
    ) -> dict[str, Tensor]:
        """See :meth:`STMixerHead.loss`."""
        clip_len = data_samples[0].metainfo['clip_len']
        outputs = [at_clip_frames(output, clip_len) for output in outputs]
        return super().loss(outputs, data_samples)

    def predict(
        self,
        outputs: Sequence[TubeletStageOutput],
        data_samples: Sequence[ActionDataSample],
    ) -> list[InstanceData]:
        """Predictions of the last stage for each clip, of which n tubelets are kept.

        ``bboxes`` (n, K, 4) are xyxy normalised by the frame without padding,
        ``person_scores`` (n, K) say where the person is, ``scores`` (n, num_classes)
        have the host's dummy column 0, ``tubelet_scores`` (n,) are the mean person
        scores where the person is.
        """
        clip_len = data_samples[0].metainfo['clip_len']
        return super().predict([at_clip_frames(outputs[-1], clip_len)], data_samples)

    def predict_by_clip(
        self, output: TubeletStageOutput, img_shape: tuple[int, int]
    ) -> InstanceData:
        found = super().predict_by_clip(output, img_shape)
        found.tubelet_scores = self.score_queries(found.person_scores)
        return found

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
    return output._replace(
        person_logits=resample(output.person_logits), bboxes=resample(output.bboxes)
    )
