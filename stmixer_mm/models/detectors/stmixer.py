"""The detector: backbone -> neck -> decoder -> head."""

from collections.abc import Sequence

from torch import Tensor

from stmixer_mm.models.decoder.initial_boxes import build_initial_boxes
from stmixer_mm.models.decoder.query_decoder import build_decoder
from stmixer_mm.models.detectors.base import ClipDetector
from stmixer_mm.models.parts import Batch, Parts, Samples, match_groups
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
        of_host = dict(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        super().__init__(backbone=backbone, neck=neck, **of_host)
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
    def parts(self) -> Parts:
        return Parts.of(self)

    @property
    def num_classes(self) -> int:
        return self.head.num_classes

    def check_feats(self, feats: Sequence[Tensor], pad_shape: tuple[int, int]) -> None:
        self.decoder.strides_of(feats, pad_shape)
        self.parts.check_feats(feats)

    def start_video(self) -> dict[str, object]:
        return self.parts.start_video()

    def _forward(self, inputs: Tensor, data_samples: Samples) -> list[StageOutput]:
        """Clips to the predictions of each stage."""
        batch = Batch.of(self.extract_feat(inputs), inputs, data_samples)
        return self.see(batch).stages

    def see(self, batch: Batch, **options: object) -> DecoderOutput:
        """Predictions of the decoder, see :meth:`.QueryDecoder.forward`."""
        boxes_xyzr = self.initial_boxes.predict(batch.feats, batch.frames)
        return self.decoder(batch.feats, boxes_xyzr, batch.frames.pad_shape, **options)

    def loss(self, inputs: Tensor, data_samples: Samples) -> dict[str, Tensor]:
        """Weighted loss terms, means over the turns of the parts; their sum trains."""
        self.head.check_truth(data_samples)
        losses, feats = self.loss_and_extract_feat(inputs)
        turns = self.parts.turns(Batch.of(feats, inputs, data_samples))
        terms = [self.loss_of_turn(turn) for turn in turns]
        if len(terms) == 1:  # no kernels for the mean of one
            return losses | terms[0]
        means = {
            name: sum(each[name] for each in terms) / len(terms) for name in terms[0]
        }
        return losses | means

    def loss_of_turn(self, batch: Batch) -> dict[str, Tensor]:
        losses, boxes_xyzr = self.initial_boxes.loss_and_predict(*batch)
        extras = self.parts.enter_training(batch)
        seen = self.decoder(batch.feats, boxes_xyzr, batch.frames.pad_shape, extras)
        terms, own, persons = match_groups(self.head, batch, seen, extras)
        return losses | terms | self.loss_of_parts(batch, own, persons)

    def loss_of_parts(self, *seen_and_matched: object) -> dict[str, Tensor]:
        """See :meth:`.QueryPart.loss`."""
        return self.parts.loss(*seen_and_matched)

    def predict(self, inputs: Tensor, data_samples: Samples) -> Samples:
        """The samples with ``pred_instances``, see :meth:`.STMixerHead.predict`."""
        feats = self.extract_feat(inputs)
        return self.predict_batch(Batch.of(feats, inputs, data_samples))

    def predict_batch(self, batch: Batch) -> Samples:
        """The same from feature maps."""
        seen = self.see(batch, extras=self.parts.enter(batch), which=LAST)
        data_samples = batch.data_samples
        found = self.head.predict(seen.stages, data_samples)
        found = self.parts.finish(batch, seen, found)
        vectors = self.decoder.query_vectors(seen.queries)
        for sample, of_clip, one in zip(data_samples, vectors, found, strict=True):
            kept = one.pop('queries')
            if self.with_query_vectors:
                one.query_vectors = of_clip[kept].float()
            sample.pred_instances = one
        return data_samples
