"""An exported file in the place of a model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.export.formats import load
from stmixer_mm.export.tensors import Outputs
from stmixer_mm.files import check_file
from stmixer_mm.models.data_preprocessor import single_clips
from stmixer_mm.models.heads.stmixer_head import Detections
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class ExportedDetector(BaseModel):
    """Predicts as the detector that was exported; for inference alone.

    Args:
        file: Written by ``tools/export.py``.
        head: Config of the model's head, which chooses the queries.

    Raises:
        UserError: the file cannot be read, or is of another number of actions.
    """

    def __init__(self, *, file: str, head: dict) -> None:
        super().__init__()
        check_file(Path(file), subject=f'Exported model {file}')
        self.head = MODELS.build(head)
        self.file = file
        self.run, self.metadata = load(Path(file))
        classes = self.metadata.classes
        if classes is not None and len(classes) != self.head.num_classes - 1:
            raise UserError(
                f'{file} has {len(classes)} actions, but the config has num_classes='
                f'{self.head.num_classes}, one more than actions; give the config that '
                'it was exported with.'
            )

    def forward(
        self,
        inputs: Sequence[Tensor],
        data_samples: Sequence[ActionDataSample],
        mode: str = 'predict',
    ) -> Sequence[ActionDataSample]:
        """The samples with ``pred_instances``, as of :meth:`.STMixer.predict`.

        Args:
            inputs: B clips (3, T, h, w), uint8.
            data_samples: Of the clips.
            mode: 'predict' is all that there is.
        """
        if mode != 'predict':
            raise UserError(
                f'{self.file} is exported, for prediction, not for {mode!r}.'
            )
        clips = single_clips(inputs)
        for clip in clips:
            if list(clip.shape[1:]) != self.metadata.shape:
                raise UserError(
                    f'A clip is {_by(clip.shape[1:])} (frames, height, width), but '
                    f'{self.file} takes {_by(self.metadata.shape)}; export one for it '
                    'with --shape, or resize videos in the test pipeline to that.'
                )
        batch = self.metadata.batch or len(clips)
        parts = [
            self.run(torch.stack(clips[start : start + batch]).numpy())
            for start in range(0, len(clips), batch)
        ]
        outputs = Outputs(
            *(
                torch.from_numpy(np.concatenate(part))
                for part in zip(*parts, strict=True)
            )
        )
        for sample, *found in zip(data_samples, *outputs, strict=True):
            *found, query_vectors = found
            sample.set_metainfo(dict(clip_len=self.metadata.shape[0]))
            sample.pred_instances = self.head.choose(
                Detections(*found), dict(query_vectors=query_vectors)
            )
        return data_samples


def put_in_place(cfg: Config, file: str | Path) -> None:
    """Let an exported file be the model of a config, in the place of a checkpoint."""
    cfg.model = dict(type='ExportedDetector', file=str(file), head=cfg.model.head)
    cfg.load_from = None


def _by(shape: Sequence[int]) -> str:
    return 'x'.join(map(str, shape))
