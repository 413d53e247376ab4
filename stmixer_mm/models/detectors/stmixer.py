"""The detector: backbone -> neck -> decoder -> head."""

from collections.abc import Sequence

from mmaction.structures import ActionDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from stmixer_mm.models.decoder.initial_boxes import FrameShapes, build_initial_boxes
from stmixer_mm.models.decoder.query_decoder import (
    ExtraQueries,
    build_decoder,
    check_outputs,
)
from stmixer_mm.models.detectors.base import ClipDetector
from stmixer_mm.models.parts import (
    Batch,
    QueryPart,
    in_turns,
    sort_extras,
    split_extras,
)
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import DecoderOutput, StageOutput


@MODELS.register_module()
class STMixer(ClipDetector):
    """One-stage sparse action detector.

    Wu et al., "STMixer: A One-Stage Sparse Action Detector", CVPR 2023.

    Args:
        backbone: See :class:`.ClipDetector`, as ``neck``, ``data_preprocessor`` and
            ``init_cfg``.
        decoder: A :class:`.QueryDecoder`: feature maps and first boxes to predictions.
        head: Predictions and ground truth to losses, or to the persons that are kept.
            Its ``num_classes`` is the decoder's too. It must read what the decoder
            predicts: persons in keyframes, or tubelets.
        initial_boxes: Config of an :class:`.InitialBoxes`; the whole frame by default.
        with_query_vectors: Predictions have ``query_vectors`` (n, C) too, which tell
            persons apart; see :meth:`.QueryDecoder.query_vectors`.
        parts: Further arguments are configs of :class:`.QueryPart`, such as
            ``denoising``; checkpoints have their parameters under the same names.
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
        for name, config in parts.items():
            if config is not None:
                sizes = dict(self.decoder.sizes, num_classes=head.num_classes)
                self.add_module(name, MODELS.build(config, default_args=sizes))
        self.head = head
        self.with_query_vectors = with_query_vectors
        check_outputs(self.decoder, self, *self.path, *self.children())

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

    def start_video(self) -> dict[str, object]:
        return {k: v for part in self.parts for k, v in part.start_video().items()}

    def _forward(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> list[StageOutput]:
        """Clips to the predictions of each stage."""
        batch = Batch.of(self.extract_feat(inputs), inputs, data_samples)
        return self.see(batch).stages

    def run(self, inputs: Tensor, frames: FrameShapes) -> DecoderOutput:
        """Clips to predictions of the decoder's own queries."""
        return self.see(Batch(self.extract_feat(inputs), [], frames))

    def see(self, batch: Batch, extras: Sequence[ExtraQueries] = ()) -> DecoderOutput:
        """Predictions of the decoder's own queries, then of further ones."""
        boxes_xyzr = self.initial_boxes.predict(batch.feats, batch.frames)
        return self.decoder(batch.feats, boxes_xyzr, batch.frames.pad_shape, extras)

    def loss(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> dict[str, Tensor]:
        """Weighted loss terms; their sum is the training loss.

        They are means over the turns in which the parts have the batch seen.
        """
        losses, feats = self.loss_and_extract_feat(inputs)
        turns = in_turns(self.parts, Batch.of(feats, inputs, data_samples))
        terms = [self.loss_of_turn(turn) for turn in turns]
        return losses | {
            name: sum(one[name] for one in terms) / len(terms) for name in terms[0]
        }

    def loss_of_turn(self, batch: Batch) -> dict[str, Tensor]:
        losses, boxes_xyzr = self.initial_boxes.loss_and_predict(*batch)
        extras = sort_extras(part.enter_training(batch) for part in self.parts)
        seen = self.decoder(batch.feats, boxes_xyzr, batch.frames.pad_shape, extras)
        matched = []
        for prefix, queries, known in split_extras(
            seen, extras, self.decoder.num_queries
        ):
            terms, persons = self.head.loss_and_match(
                queries.stages, batch.data_samples, known, prefix
            )
            losses |= terms
            matched.append((queries, persons))
        for part in self.parts:
            losses |= part.loss(batch, *matched[0])
        return losses

    def find(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> list[InstanceData]:
        """Predictions of each clip, see :meth:`.STMixerHead.predict` and the parts."""
        batch = Batch.of(self.extract_feat(inputs), inputs, data_samples)
        seen = self.see(batch, sort_extras(part.enter(batch) for part in self.parts))
        found = self.head.predict(seen.stages, data_samples)
        for part in self.parts:
            found = part.finish(batch, seen, found)
        kept = [one.pop('queries') for one in found]
        if self.with_query_vectors:
            vectors = self.decoder.query_vectors(seen.queries)
            for one, of_clip, rows in zip(found, vectors, kept, strict=True):
                one.query_vectors = of_clip[rows].float()
        return found

    def predict(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> Sequence[ActionDataSample]:
        """The samples with ``pred_instances``, see :meth:`find`."""
        found = self.find(inputs, data_samples)
        for sample, predictions in zip(data_samples, found, strict=True):
            sample.pred_instances = predictions
        return data_samples
