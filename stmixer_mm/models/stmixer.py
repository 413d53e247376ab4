"""The detector: backbone -> neck -> decoder -> head."""

from collections.abc import Sequence

import torch
from mmaction.structures import ActionDataSample
from mmengine.model import BaseModel
from torch import Tensor

from ..compat import exact_convolutions
from ..registry import MODELS
from .decoder import StageOutput


@MODELS.register_module()
class STMixer(BaseModel):
    """One-stage sparse action detector.

    Wu et al., "STMixer: A One-Stage Sparse Action Detector", CVPR 2023.

    Args:
        backbone: Clips (B, 3, T_in, H, W) to one map or several.
        neck: Those maps to L maps (B, C, T, H_l, W_l), finest first.
        decoder: The maps to one :class:`~.decoder.StageOutput` per stage.
        head: Stage outputs and ground truth to losses, or to predictions.
        data_preprocessor: Samples of the loader to clips.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`; a
            pretrained recogniser's checkpoint fills the backbone.
    """

    def __init__(
        self,
        *,
        backbone: dict,
        neck: dict,
        decoder: dict,
        head: dict,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck)
        self.decoder = MODELS.build(decoder)
        self.head = MODELS.build(head)
        if self.decoder.num_classes != self.head.num_classes:
            raise ValueError(
                f'The decoder has num_classes={self.decoder.num_classes} but the head '
                f'has num_classes={self.head.num_classes}; set both to the number of '
                'actions plus one.'
            )

    def forward(
        self,
        inputs: Tensor,
        data_samples: Sequence[ActionDataSample],
        mode: str = 'tensor',
    ) -> list[StageOutput] | dict[str, Tensor] | list[ActionDataSample]:
        """
        Args:
            inputs: Normalised and padded clips, (B, 3, T_in, H, W).
            data_samples: One per clip; metainfo ``img_shape`` is (h, w) without
                padding.
            mode: 'tensor', 'loss' or 'predict'.

        Returns:
            Stage outputs, weighted loss terms (their sum is the training loss), or
            the samples with ``pred_instances``.
        """
        if mode == 'tensor':
            return self.decode(inputs, data_samples)
        if mode == 'loss':
            return self.head.loss(self.decode(inputs, data_samples), data_samples)
        if mode == 'predict':
            return self.head.predict(self.decode(inputs, data_samples), data_samples)
        raise ValueError(
            f"mode='{mode}' is unknown; use 'tensor', 'loss' or 'predict'."
        )

    def extract_feat(self, inputs: Tensor) -> list[Tensor]:
        """Clips (B, 3, T_in, H, W) to the neck's maps."""
        with exact_convolutions(inputs.device.type):
            return self.neck(self.backbone(inputs))

    def decode(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> list[StageOutput]:
        """Clips to what each stage says of them."""
        img_shapes = torch.tensor(
            [sample.metainfo['img_shape'] for sample in data_samples],
            device=inputs.device,
        )
        return self.decoder(
            self.extract_feat(inputs),
            img_shapes=img_shapes,
            pad_shape=tuple(inputs.shape[-2:]),
        )
