"""A detector with tensors in and tensors out.

Shapes: B clips, Q queries, T frames, A actions, C channels.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stmixer_mm.errors import UserError
from stmixer_mm.models.boxes import frame_scale
from stmixer_mm.models.data_preprocessor import ClipDataPreprocessor
from stmixer_mm.models.decoder.initial_boxes import FrameShapes
from stmixer_mm.models.detectors.stmixer import STMixer
from stmixer_mm.models.parts import Batch
from stmixer_mm.structures import LAST

INPUT = 'clips'
LEFT_OUT = ('mask_head',)  # depends on which persons are found


class Outputs(NamedTuple):
    """Outputs of a file, in this order."""

    person_scores: Tensor  # (B, Q), in [0, 1]; of tubelets (B, Q, T)
    action_scores: Tensor  # (B, Q, A), in [0, 1]; with frame_actions (B, Q, T, A)
    bboxes: Tensor  # (B, Q, 4), of tubelets (B, Q, T, 4): xyxy, shares of the frame
    query_vectors: Tensor  # (B, Q, C), which tell persons apart


def join(parts: Iterable[Sequence[np.ndarray]]) -> Outputs:
    """Concatenate the outputs for several batches."""
    fields = zip(*parts, strict=True)
    return Outputs(*(torch.from_numpy(np.concatenate(field)) for field in fields))


class TensorDetector(nn.Module):
    """Normalisation, padding, network and scores, with no data-dependent shapes.

    Args:
        model: An :class:`.STMixer` of clips, in evaluation mode. The parts in
            :data:`LEFT_OUT` are not run.

    Raises:
        UserError: it is another model.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        preprocessor = getattr(model, 'data_preprocessor', None)
        is_of_clips = isinstance(preprocessor, ClipDataPreprocessor)
        if not (isinstance(model, STMixer) and is_of_clips):
            raise UserError(
                f'Only an STMixer of clips can be exported, got {type(model).__name__}; '
                'give its config and checkpoint.'
            )
        self.model = model

    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        """The fields of :class:`Outputs`, for uint8 clips (B, 3, T, h, w)."""
        model, (num_frames, *size) = self.model, clips.shape[2:]
        pad_shape = self._pad_shape(*size)
        margins = (0, pad_shape[1] - size[1], 0, pad_shape[0] - size[0])
        inputs = F.pad(model.data_preprocessor.normalise(clips.float()), margins)
        feats = model.extract_feat(inputs)
        scale = frame_scale(size, model.data_preprocessor.mean)
        img_shapes = scale[1:3].expand(feats[0].size(0), 2)
        frames = FrameShapes(img_shapes, pad_shape)
        outputs = model.decode(Batch(feats, [], frames), which=LAST)
        stage = model.head.read(outputs.stages[-1], num_frames)
        detections = model.head.score(stage, scale)
        return *detections, model.decoder.query_vectors(outputs.queries).float()

    def _pad_shape(self, height: int, width: int) -> tuple[int, int]:
        pad_size = self.model.data_preprocessor.pad_size
        return pad_size([height]), pad_size([width])
