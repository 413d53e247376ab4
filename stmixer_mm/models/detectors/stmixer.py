"""The detector: backbone -> neck -> decoder -> head."""

from collections.abc import Sequence

import torch
from mmaction.structures import ActionDataSample
from mmengine.model import BaseModel
from torch import Tensor

from stmixer_mm.compat import exact_convolutions
from stmixer_mm.errors import UserError
from stmixer_mm.models.decoder.stage import StageOutput
from stmixer_mm.models.part_checks import check_kinds, check_parts
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class STMixer(BaseModel):
    """One-stage sparse action detector.

    Wu et al., "STMixer: A One-Stage Sparse Action Detector", CVPR 2023.

    Args:
        backbone: Clips (B, 3, T_in, H, W) to one map or several.
        neck: Those maps to L maps (B, C, T, H_l, W_l), finest first; a list of necks
            is run one after the other, None is for backbones that need none.
        decoder: The maps to one :class:`~.decoder.StageOutput` per stage; a
            :class:`~.decoder.QueryDecoder`.
        head: Stage outputs and ground truth to losses, or to predictions.
        denoising: Config of a :class:`DenoisingQueries`; training then adds noised
            true boxes to the queries.
        data_preprocessor: Samples of the loader to clips.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`; a
            pretrained recogniser's checkpoint fills the backbone.
    """

    # Whether backbone and neck take images, of clips of one frame.
    of_images = False

    def __init__(
        self,
        *,
        backbone: dict,
        neck: dict | list | None,
        decoder: dict,
        head: dict,
        denoising: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = None if neck is None else MODELS.build(neck)
        self.decoder = MODELS.build(decoder)
        self.head = MODELS.build(head)
        check_kinds(self.decoder, self.head, dict(decoder=decoder, head=head))
        if self.decoder.num_classes != self.head.num_classes:
            raise UserError(
                f'The decoder has num_classes={self.decoder.num_classes} but the head '
                f'has num_classes={self.head.num_classes}; set both to the number of '
                'actions plus one.'
            )
        self.denoising = None
        if denoising is not None:
            self.denoising = MODELS.build(
                denoising,
                default_args=dict(
                    embed_dims=self.decoder.embed_dims,
                    num_queries=self.decoder.num_queries,
                    num_classes=self.decoder.num_classes,
                ),
            )
        self.check_parts(dict(backbone=backbone, neck=neck, decoder=decoder))

    def check_parts(
        self, settings: dict | None = None, *, clip_len: int | None = None
    ) -> None:
        """Raise a ``ValueError`` where parts do not fit, see :func:`.check_parts`.

        Nothing is known of a subclass that feeds its parts in its own way, but for
        images.
        """
        if self.of_images or type(self).extract_feat is STMixer.extract_feat:
            check_parts(
                self,
                settings,
                decoder=self.decoder,
                clip_len=clip_len,
                of_images=self.of_images,
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
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        raise UserError(f"mode='{mode}' is unknown; use 'tensor', 'loss' or 'predict'.")

    def extract_feat(self, inputs: Tensor) -> list[Tensor]:
        """Clips (B, 3, T_in, H, W) to the neck's maps."""
        with exact_convolutions(inputs.device.type):
            feats = self.backbone(inputs)
            if self.neck is not None:
                feats = self.neck(feats)
        return [feats] if isinstance(feats, Tensor) else list(feats)

    def decode(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> list[StageOutput]:
        """Clips to what each stage says of them."""
        return self.decoder(
            self.extract_feat(inputs), **frame_shapes(inputs, data_samples)
        )

    def loss(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> dict[str, Tensor]:
        """Weighted loss terms of all parts."""
        feats, shapes = self.extract_feat(inputs), frame_shapes(inputs, data_samples)
        losses, boxes_xyzr = self.decoder.initial_boxes.loss_and_predict(
            feats, data_samples, **shapes
        )
        if self.denoising is None:
            outputs = self.decoder(feats, boxes_xyzr=boxes_xyzr, **shapes)
            return losses | self.head.loss(outputs, data_samples)
        noised = self.denoising(data_samples, shapes['img_shapes'])
        outputs = self.decoder(
            feats, boxes_xyzr=boxes_xyzr, extra=noised.extra, **shapes
        )
        own, extra = zip(*map(self.split_queries, outputs), strict=True)
        losses |= self.head.loss(own, data_samples)
        losses |= self.head.loss_denoising(extra, noised.persons, data_samples)
        return losses

    def split_queries(self, output: StageOutput) -> tuple[StageOutput, StageOutput]:
        """The decoder's own queries, and those behind them."""
        num_queries = self.decoder.num_queries
        own = StageOutput(*(values[:, :num_queries] for values in output))
        return own, StageOutput(*(values[:, num_queries:] for values in output))

    def predict(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> Sequence[ActionDataSample]:
        """The samples with ``pred_instances``."""
        return self.head.predict(self.decode(inputs, data_samples), data_samples)


def frame_shapes(inputs: Tensor, data_samples: Sequence[ActionDataSample]) -> dict:
    """What decoders have to know of the frames: sizes without and with padding."""
    img_shapes = torch.tensor(
        [sample.metainfo['img_shape'] for sample in data_samples],
        device=inputs.device,
    )
    return dict(img_shapes=img_shapes, pad_shape=tuple(inputs.shape[-2:]))
