"""The detector: backbone -> neck -> decoder -> head."""

from collections.abc import Sequence

from torch import Tensor

from stmixer_mm.models.decoder.initial_boxes import build_initial_boxes
from stmixer_mm.models.decoder.query_decoder import build_decoder
from stmixer_mm.models.detectors.base import ClipDetector
from stmixer_mm.models.parts import Batch, QueryPart, Samples
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import LAST, DecoderOutput, StageOutput


@MODELS.register_module()
class STMixer(ClipDetector):
    """One-stage sparse action detector.

    Wu et al., "STMixer: A One-Stage Sparse Action Detector", CVPR 2023.

    Args:
        backbone: See :class:`.ClipDetector`, as ``neck`` and the last two.
        decoder: A :class:`.QueryDecoder`: feature maps and first boxes to predictions.
        head: Losses, or the persons that are kept; its ``num_classes`` is the decoder's.
        initial_boxes: An :class:`.InitialBoxes`; the whole frame by default.
        with_query_vectors: Predictions have :meth:`.QueryDecoder.query_vectors` too.
        parts: Configs of :class:`.QueryPart`; of one that is None, a checkpoint may
            have weights. ``denoising=dict(…)``, say.
    """

    def __init__(
        self,
        *,
        backbone: dict,
        neck: dict | list | None,
        decoder: dict,
        head: dict,
        initial_boxes: dict | None = None,
        with_query_vectors: bool = False,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
        **parts: dict | None,
    ) -> None:
        super().__init__(
            backbone=backbone,
            neck=neck,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        head = MODELS.build(head)
        self.decoder = build_decoder(decoder, num_classes=head.num_classes)
        self.initial_boxes = build_initial_boxes(initial_boxes, self.decoder)
        sizes = dict(self.decoder.sizes, num_classes=head.num_classes)
        for name, part in parts.items():
            part = part if part is None else MODELS.build(part, default_args=sizes)
            self.add_module(name, part)
        self.head = head
        self.with_query_vectors = with_query_vectors
        self.decoder.check_readers(self, *self.path, *self.children())

    @property
    def parts(self) -> list[QueryPart]:
        return [part for part in self.children() if isinstance(part, QueryPart)]

    @property
    def num_classes(self) -> int:
        return self.head.num_classes

    def check_feats(self, feats: Sequence[Tensor], pad_shape: tuple[int, int]) -> None:
        self.decoder.strides_of(feats, pad_shape)
        for part in self.parts:
            part.check_feats(feats)

    def _forward(self, inputs: Tensor, data_samples: Samples) -> list[StageOutput]:
        """Clips to the predictions of each stage."""
        batch = Batch.of(self.extract_feat(inputs), inputs, data_samples)
        return self.decode(batch).stages

    def decode(self, batch: Batch, **options: object) -> DecoderOutput:
        """Predictions of the decoder, see :meth:`.QueryDecoder.forward`."""
        boxes_xyzr = self.initial_boxes.predict(batch.feats, batch.frames)
        return self.decoder(batch.feats, boxes_xyzr, batch.frames.pad_shape, **options)

    def loss(self, inputs: Tensor, data_samples: Samples) -> dict[str, Tensor]:
        """Weighted loss terms; their sum trains."""
        batch = Batch.of(self.extract_feat(inputs), inputs, data_samples)
        losses, boxes_xyzr = self.initial_boxes.loss_and_predict(*batch)
        extras = [*filter(None, [part.enter_training(batch) for part in self.parts])]
        pad_shape = batch.frames.pad_shape
        outputs = self.decoder(batch.feats, boxes_xyzr, pad_shape, extras)
        terms, persons = self.head.loss(
            outputs.stages,
            batch.data_samples,
            {extra.prefix: extra.persons for extra in extras},
        )
        outputs = outputs.take(slice(self.decoder.num_queries)) if extras else outputs
        for part in self.parts:
            terms |= part.loss(batch, outputs, persons)
        return losses | terms

    def predict(self, inputs: Tensor, data_samples: Samples) -> Samples:
        """The samples with ``pred_instances``, see :meth:`.STMixerHead.predict`."""
        feats = self.extract_feat(inputs)
        return self.predict_batch(Batch.of(feats, inputs, data_samples))

    def predict_batch(self, batch: Batch) -> Samples:
        """Predictions from feature maps."""
        outputs = self.decode(batch, which=LAST)
        predictions = self.head.predict(outputs.stages, batch.data_samples)
        for part in self.parts:
            predictions = part.finish(batch, outputs, predictions)
        vectors = self.decoder.query_vectors(outputs.queries)
        clips = zip(batch.data_samples, vectors, predictions, strict=True)
        for sample, clip_vectors, persons in clips:
            queries = persons.pop('queries')
            if self.with_query_vectors:
                persons.query_vectors = clip_vectors[queries].float()
            sample.pred_instances = persons
        return batch.data_samples
