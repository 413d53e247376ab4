"""An exported file in place of a model."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor, nn

from stmixer_mm.apis.read import reader_of
from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import check_file
from stmixer_mm.models.data_preprocessor import single_clips
from stmixer_mm.models.heads.stmixer_head import Detections
from stmixer_mm.models.parts import Samples
from stmixer_mm.projects.export.formats import load
from stmixer_mm.projects.export.graphs import check_shapes
from stmixer_mm.projects.export.tensors import Outputs, join
from stmixer_mm.projects.export.traced import SMALLEST
from stmixer_mm.registry import MODELS

SLACK = 1e-3  # of scores and of shares of the frame, for rounding


@MODELS.register_module()
class ExportedDetector(BaseModel):
    """The detector that was exported, for inference only.

    Args:
        file: Written by ``tools/export.py``.
        head: Config of the model's head, which chooses the queries.
        with_query_vectors: See :class:`.STMixer`.

    Raises:
        UserError: the file cannot be read, or its model is of another kind or has
            another number of actions.
    """

    def __init__(
        self,
        *,
        file: str,
        head: dict,
        with_query_vectors: bool = False,
    ) -> None:
        super().__init__()
        check_file(Path(file), subject=f'Exported model {file}')
        self.head = MODELS.build(head)
        self.file = file
        self.with_query_vectors = with_query_vectors
        # DistributedDataParallel takes no model without parameters.
        self.empty = nn.Parameter(torch.empty(0))
        self.run, self.metadata = load(Path(file))
        self.classes = self.metadata.classes
        num_actions = self.head.num_classes - 1
        exported = self.metadata.tubelets, len(self.classes or [None] * num_actions)
        expected = reader_of(self).every_frame, num_actions
        if exported != expected:
            raise UserError(
                f'{file} has (tubelets, actions) = {exported}, but the config '
                f'{expected}; give the config that it was exported with.'
            )

    def forward(
        self,
        inputs: Sequence[Tensor],
        data_samples: Samples,
        mode: str = 'predict',
    ) -> Samples:
        """The samples with ``pred_instances``, see :meth:`.STMixer.predict`.

        Args:
            inputs: B clips (3, T, h, w), uint8.
            data_samples: Of the clips.
            mode: 'predict', the only one.
        """
        if mode != 'predict':
            raise UserError(f'{self.file} is for prediction only, not for {mode!r}.')
        clips = single_clips(inputs)
        for clip in clips:
            self.check_shape(clip.shape[1:])
        batches = [
            part.cpu().numpy()
            for _, clips_of_a_size in groupby(clips, key=lambda clip: clip.shape)
            for part in torch.stack([*clips_of_a_size]).split(
                self.metadata.batch or len(clips)
            )
        ]
        return self.fill(data_samples, map(self.run, batches))

    def fill(self, data_samples: Samples, parts: Iterable[list[np.ndarray]]) -> Samples:
        """Samples with ``pred_instances``, from the file's outputs for parts of them."""
        with blame(f'{self.file} fails', 'export it anew with tools/export.py'):
            outputs = join(parts)
            self.check_outputs(outputs, len(data_samples))
        *fields, vectors = outputs
        predictions = self.head.choose(Detections(*fields))
        for sample, clip_vectors, instances in zip(
            data_samples, vectors, predictions, strict=True
        ):
            sample.set_metainfo(dict(clip_len=self.metadata.shape[0]))
            rows = instances.pop('queries')
            if self.with_query_vectors:
                instances.query_vectors = clip_vectors[rows]
            sample.pred_instances = instances
        return data_samples

    def check_outputs(self, outputs: Outputs, num_clips: int) -> None:
        """Raises ``ValueError`` for those of no detector."""
        check_shapes([tuple(output.shape) for output in outputs], self.metadata)
        sizes = len(outputs.bboxes), outputs.action_scores.shape[-1]
        expected_sizes = num_clips, self.head.num_classes - 1
        if sizes != expected_sizes:
            raise ValueError(
                f'(clips, actions) of its outputs are {sizes}, not {expected_sizes}'
            )
        *shares, vectors = outputs
        inside = [((values > -SLACK) & (values < 1 + SLACK)).all() for values in shares]
        if not all([*inside, vectors.isfinite().all()]):
            raise ValueError('some outputs are not in [0, 1], or not finite')

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises ``UserError`` for clips (T, h, w) that the file does not take."""
        if any(
            size < SMALLEST if expected is None else size != expected
            for size, expected in zip(shape, self.metadata.shape, strict=True)
        ):
            expected = [size or f'≥{SMALLEST}' for size in self.metadata.shape]
            raise UserError(
                f'A clip is {"x".join(map(str, shape))} (frames, height, width), but '
                f'{self.file} takes {"x".join(map(str, expected))}; export for it with '
                '--shape or --dynamic size, or resize videos in the pipeline.'
            )


def put_in_place(cfg: Config, file: str | Path) -> None:
    """Make an exported file the model of a config, in place of a checkpoint.

    Raises:
        UserError: the config is of a model that is never exported.
    """
    if 'head' not in cfg.model:
        raise UserError(
            f'{file} is an exported STMixer, but the config is of a '
            f'{cfg.model.get("type")}; give the config that it was exported with.'
        )
    cfg.model = dict(type='ExportedDetector', file=str(file), head=cfg.model.head)
    cfg.load_from = None
