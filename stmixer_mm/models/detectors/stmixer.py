"""The detector: backbone -> neck -> decoder -> head."""

from collections.abc import Sequence

import torch
from mmaction.structures import ActionDataSample
from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.models.decoder.query_decoder import QueryDecoder
from stmixer_mm.models.decoder.stage import StageOutput
from stmixer_mm.models.detectors.base import ClipDetector
from stmixer_mm.models.initial_boxes.simple_boxes import FrameShapes, InitialBoxes
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class STMixer(ClipDetector):
    """One-stage sparse action detector.

    Wu et al., "STMixer: A One-Stage Sparse Action Detector", CVPR 2023.

    Args:
        decoder: Feature maps and first boxes to one output per stage, such as a
            :class:`~.decoder.StageOutput`; a :class:`~.decoder.QueryDecoder`.
        head: Stage outputs and ground truth to losses, or to predictions. Its
            ``num_classes`` is the decoder's too. What the decoder finds, persons in
            keyframes or tubelets, it has to read.
        initial_boxes: Config of an :class:`InitialBoxes`; the whole frame by default.
        denoising: Config of a :class:`DenoisingQueries`; training then adds noised
            persons to the queries.
        with_query_vectors: Predictions have ``query_vectors`` (n, C) too, which tell
            persons apart; see :meth:`.QueryDecoder.look_of`.
        **kwargs: Of :class:`.ClipDetector`.
    """

    def __init__(
        self,
        *,
        decoder: dict,
        head: dict,
        initial_boxes: dict | None = None,
        denoising: dict | None = None,
        with_query_vectors: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        head = MODELS.build(head)
        self.decoder = build_decoder(decoder, num_classes=head.num_classes)
        self.initial_boxes = build_initial_boxes(initial_boxes, self.decoder)
        self.denoising = None
        if denoising is not None:
            sizes = dict(num_classes=head.num_classes, **query_sizes(self.decoder))
            self.denoising = MODELS.build(denoising, default_args=sizes)
        self.head = head
        self.with_query_vectors = with_query_vectors
        check_outputs(self.decoder, self, head, self.initial_boxes, self.denoising)

    @property
    def num_classes(self) -> int:
        return self.head.num_classes

    def check_feats(self, feats: Sequence[Tensor], pad_shape: tuple[int, int]) -> None:
        self.decoder.strides_of(feats, pad_shape)

    def _forward(
        self,
        inputs: Tensor,
        data_samples: Sequence[ActionDataSample],
        **options: bool,
    ) -> list[StageOutput]:
        """Clips to what each stage says of them; ``options`` of the decoder."""
        feats, frames = self.extract_feat(inputs), frame_shapes(inputs, data_samples)
        boxes_xyzr = self.initial_boxes.predict(feats, frames)
        return self.decoder(feats, boxes_xyzr, pad_shape=frames.pad_shape, **options)

    def loss(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> dict[str, Tensor]:
        """Weighted loss terms of all parts; their sum is the training loss."""
        self.check_labels(data_samples)
        feats, frames = self.extract_feat(inputs), frame_shapes(inputs, data_samples)
        losses, boxes_xyzr = self.initial_boxes.loss_and_predict(
            feats, data_samples, frames
        )
        noised = None
        if self.denoising is not None:
            noised = self.denoising(data_samples, frames.img_shapes)
        outputs = self.decoder(
            feats,
            boxes_xyzr,
            pad_shape=frames.pad_shape,
            extra=noised and noised.extra,
        )
        if noised is None:
            return losses | self.head.loss(outputs, data_samples)
        own, copies = zip(*map(self.split_queries, outputs), strict=True)
        losses |= self.head.loss(own, data_samples)
        return losses | self.head.loss_denoising(copies, noised.persons, data_samples)

    def split_queries(self, output: StageOutput) -> tuple[StageOutput, StageOutput]:
        """The decoder's own queries, and those behind them."""
        num_queries = self.decoder.num_queries
        own = StageOutput(*(values[:, :num_queries] for values in output))
        return own, StageOutput(*(values[:, num_queries:] for values in output))

    def predict(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> Sequence[ActionDataSample]:
        """The samples with ``pred_instances``, see :meth:`.STMixerHead.predict`."""
        if self.with_query_vectors:
            outputs, vectors = self._forward(inputs, data_samples, with_vectors=True)
            found = self.head.predict(outputs, data_samples, vectors)
        else:
            found = self.head.predict(self._forward(inputs, data_samples), data_samples)
        for sample, predictions in zip(data_samples, found, strict=True):
            sample.pred_instances = predictions
        return data_samples


def check_outputs(decoder: QueryDecoder, *parts: object) -> None:
    """Refuse parts that go with another kind of decoder, as far as they say so."""
    makes = decoder.output_type
    for part in parts:
        wants = getattr(part, 'output_type', makes)
        if wants is not makes:
            raise UserError(
                f'{type(part).__name__} goes with decoders of a {wants.__name__}, but '
                f'{type(decoder).__name__} makes a {makes.__name__}; exchange the one '
                'or the other.'
            )


def build_decoder(config: dict, *, num_classes: int) -> QueryDecoder:
    """The decoder for a head of as many classes."""
    decoder = MODELS.build(config, default_args=dict(num_classes=num_classes))
    if decoder.num_classes != num_classes:
        raise UserError(
            f'The decoder has num_classes={decoder.num_classes} but the head has '
            f'num_classes={num_classes}; leave model.decoder.num_classes out.'
        )
    return decoder


def build_initial_boxes(config: dict | None, decoder: QueryDecoder) -> InitialBoxes:
    """What gives the queries of a decoder their first boxes."""
    return MODELS.build(
        config or dict(type='stmixer_mm.WholeFrameBoxes'),
        default_args=query_sizes(decoder),
    )


def query_sizes(decoder: QueryDecoder) -> dict[str, int]:
    """What the parts that make queries take over from the decoder."""
    return dict(num_queries=decoder.num_queries, embed_dims=decoder.embed_dims)


def frame_shapes(
    inputs: Tensor, data_samples: Sequence[ActionDataSample]
) -> FrameShapes:
    """Sizes of the frames of clips (B, 3, T_in, H, W)."""
    img_shapes = [sample.metainfo['img_shape'] for sample in data_samples]
    return FrameShapes(
        torch.tensor(img_shapes, device=inputs.device), tuple(inputs.shape[-2:])
    )
