"""The detector: backbone -> neck -> decoder -> head."""

from collections.abc import Sequence

import torch
from mmaction.structures import ActionDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.models.decoder.initial_boxes import FrameShapes, InitialBoxes
from stmixer_mm.models.decoder.query_decoder import (
    ExtraQueries,
    QueryDecoder,
    join_extra,
)
from stmixer_mm.models.decoder.stage import Queries, StageOutput
from stmixer_mm.models.detectors.base import ClipDetector
from stmixer_mm.models.heads.stmixer_head import in_float32
from stmixer_mm.projects.track_queries.query_interaction import split_keyframes
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class STMixer(ClipDetector):
    """One-stage sparse action detector.

    Wu et al., "STMixer: A One-Stage Sparse Action Detector", CVPR 2023.

    Args:
        decoder: Feature maps and first boxes to one output per stage, such as a
            :class:`~.decoder.StageOutput`; a :class:`~.decoder.QueryDecoder`.
        head: Stage outputs and ground truth to losses, or to predictions. Its
            ``num_classes`` is the decoder's too. It must read what the decoder finds:
            persons in keyframes, or tubelets.
        initial_boxes: Config of an :class:`InitialBoxes`; the whole frame by default.
        denoising: Config of a :class:`DenoisingQueries`; training then adds noised
            persons to the queries.
        query_interaction: Config of a :class:`QueryInteraction`; persons are then
            carried from keyframe to keyframe, see :meth:`loss` and :meth:`predict`.
        mask_head: Config of a :class:`QueryMaskHead`; persons then have ``masks``.
        with_query_vectors: Predictions have ``query_vectors`` (n, C) too, which tell
            persons apart; see :meth:`.QueryDecoder.look_of`.
        **kwargs: See :class:`.ClipDetector`.
    """

    def __init__(
        self,
        *,
        decoder: dict,
        head: dict,
        initial_boxes: dict | None = None,
        denoising: dict | None = None,
        query_interaction: dict | None = None,
        mask_head: dict | None = None,
        with_query_vectors: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        head = MODELS.build(head)
        self.decoder = build_decoder(decoder, num_classes=head.num_classes)
        self.initial_boxes = build_initial_boxes(initial_boxes, self.decoder)
        self.denoising = self.query_interaction = self.mask_head = None
        if denoising is not None:
            sizes = dict(num_classes=head.num_classes, **query_sizes(self.decoder))
            self.denoising = MODELS.build(denoising, default_args=sizes)
        if query_interaction is not None:
            self.query_interaction = MODELS.build(
                query_interaction, default_args=query_sizes(self.decoder)
            )
        if mask_head is not None:
            sizes = dict(embed_dims=self.decoder.embed_dims)
            self.mask_head = MODELS.build(mask_head, default_args=sizes)
        self.head = head
        self.with_query_vectors = with_query_vectors
        parts = (
            self.initial_boxes,
            self.denoising,
            self.query_interaction,
            self.mask_head,
            self._forecast,
        )
        check_outputs(self.decoder, self, head, *parts)

    @property
    def num_classes(self) -> int:
        return self.head.num_classes

    def check_feats(self, feats: Sequence[Tensor], pad_shape: tuple[int, int]) -> None:
        self.decoder.strides_of(feats, pad_shape)
        if self.mask_head is not None:
            self.mask_head.check_feats(feats)

    def _forward(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> list[StageOutput]:
        """Clips to what each stage says about them."""
        _, (outputs, *_) = self.run(inputs, frame_shapes(inputs, data_samples))
        return outputs

    def run(
        self, inputs: Tensor, frames: FrameShapes, extra: ExtraQueries | None = None
    ) -> tuple[list[Tensor], tuple[list[StageOutput], Queries, Tensor]]:
        """Feature maps of clips, and what the decoder makes of them."""
        feats = self.extract_feat(inputs)
        boxes_xyzr = self.initial_boxes.predict(feats, frames)
        return feats, self.decoder(
            feats,
            boxes_xyzr,
            pad_shape=frames.pad_shape,
            extra=extra,
            with_queries=True,
        )

    def loss(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> dict[str, Tensor]:
        """Weighted loss terms of all parts; their sum is the training loss.

        With ``query_interaction`` the samples are sequences of keyframes, all first
        ones before all second ones, and the terms are means over the keyframes.
        """
        self.check_labels(data_samples)
        neck_losses, feats = self.loss_and_extract_feat(inputs)
        frames = frame_shapes(inputs, data_samples)
        if self.query_interaction is None:
            return neck_losses | self.loss_of_keyframe(feats, data_samples, frames)[0]
        losses, parts = [], split_keyframes(data_samples)
        tracks = [self.query_interaction.start() for _ in data_samples[parts[0]]]
        for part in parts:
            of_keyframe, tracks = self.loss_of_keyframe(
                [feat[part] for feat in feats],
                data_samples[part],
                frames._replace(img_shapes=frames.img_shapes[part]),
                tracks,
            )
            losses.append(of_keyframe)
        return neck_losses | {
            name: sum(one[name] for one in losses) / len(losses) for name in losses[0]
        }

    def loss_of_keyframe(
        self,
        feats: Sequence[Tensor],
        data_samples: Sequence[ActionDataSample],
        frames: FrameShapes,
        tracks: Sequence[InstanceData] | None = None,
    ) -> tuple[dict[str, Tensor], Sequence[InstanceData]]:
        """Loss terms of B clips, and the tracks for the keyframes that follow.

        Args:
            feats: L levels (B, C, T, H_l, W_l).
            data_samples: The ground truth.
            frames: Sizes of the frames.
            tracks: From the keyframes before; None without ``query_interaction``.
        """
        losses, boxes_xyzr = self.initial_boxes.loss_and_predict(
            feats, data_samples, frames
        )
        extra = held = noised = None
        num_copies = 0
        if tracks is not None:
            extra = self.query_interaction(tracks)
            held = self.query_interaction.hold(tracks, data_samples)
        if self.denoising is not None:
            noised = self.denoising(data_samples, frames.img_shapes)
            num_copies = noised.persons.size(1)
            extra = noised.extra if extra is None else join_extra(extra, noised.extra)
        outputs, queries, boxes_xyzr = self.decoder(
            feats,
            boxes_xyzr,
            pad_shape=frames.pad_shape,
            extra=extra,
            with_queries=True,
        )
        own, copies = zip(
            *(split_queries(output, num_copies) for output in outputs), strict=True
        )
        if tracks is None and self.mask_head is None:
            losses |= self.head.loss(own, data_samples)
        else:
            terms, persons = self.head.loss_and_match(own, data_samples, held)
            losses |= terms
        if self.mask_head is not None:
            looks = self.decoder.look_of(queries)[:, : persons.size(1)]
            losses |= self.mask_head.loss(
                feats, looks, own[-1].bboxes, persons, data_samples, frames
            )
        if tracks is not None:
            logits = own[-1].person_logits.detach().float()
            tracks = self.query_interaction.teach(
                tracks, queries, boxes_xyzr, logits, persons, data_samples
            )
        if noised is not None:
            losses |= self.head.loss_denoising(copies, noised.persons, data_samples)
        return losses, tracks

    def find(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> list[InstanceData]:
        """What each clip shows, see :meth:`.STMixerHead.predict`.

        With a mask head there are ``masks`` (n, h, w) bool too, see
        :meth:`.QueryMaskHead.predict`.
        """
        frames = frame_shapes(inputs, data_samples)
        feats, (outputs, queries, _) = self.run(inputs, frames)
        found = self.head.predict(outputs, data_samples, self.looks_of(queries))
        self.add_masks(feats, found, data_samples, frames)
        return found

    def looks_of(self, queries: Queries) -> dict[str, Tensor]:
        """Fields of the last queries that go with their predictions."""
        if self.mask_head is None and not self.with_query_vectors:
            return {}
        return dict(query_vectors=self.decoder.look_of(queries).float())

    def add_masks(
        self,
        feats: Sequence[Tensor],
        found: Sequence[InstanceData],
        data_samples: Sequence[ActionDataSample],
        frames: FrameShapes,
    ) -> None:
        """Draw who was found, if there is a mask head."""
        if self.mask_head is None:
            return
        masks = self.mask_head.predict(feats, found, data_samples, frames)
        for predictions, of_clip in zip(found, masks, strict=True):
            predictions.masks = of_clip
            if not self.with_query_vectors:
                del predictions.query_vectors

    def predict(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> Sequence[ActionDataSample]:
        """The samples with ``pred_instances``, see :meth:`.STMixerHead.predict`.

        With ``query_interaction``, samples may have ``tracks``, from their video's
        keyframe before or :meth:`.QueryInteraction.start`. They then get
        ``instances_id`` in ``pred_instances``; ``tracks`` become the next keyframe's.
        """
        if self.query_interaction is not None and 'tracks' in data_samples[0]:
            return self.predict_next(inputs, data_samples)
        found = self.find(inputs, data_samples)
        for sample, predictions in zip(data_samples, found, strict=True):
            sample.pred_instances = predictions
        return data_samples

    def predict_next(
        self, inputs: Tensor, data_samples: Sequence[ActionDataSample]
    ) -> Sequence[ActionDataSample]:
        """:meth:`predict` of samples that have ``tracks``."""
        tracks = [sample.tracks for sample in data_samples]
        frames = frame_shapes(inputs, data_samples)
        feats, (outputs, queries, boxes_xyzr) = self.run(
            inputs, frames, extra=self.query_interaction(tracks)
        )
        looks = self.looks_of(queries)
        last = in_float32(outputs[-1])
        following, ids = self.query_interaction.follow(
            tracks, queries, boxes_xyzr, last.person_logits
        )
        for clip, sample in enumerate(data_samples):
            count = len(ids[clip])  # behind them is padding
            of_clip = StageOutput(*(v[clip : clip + 1, :count] for v in last))
            of_queries = {k: v[clip : clip + 1, :count] for k, v in looks.items()}
            of_queries['instances_id'] = ids[clip][None]
            (found,) = self.head.predict([of_clip], [sample], of_queries)
            sample.pred_instances = found[found.instances_id >= 0]
            sample.tracks = following[clip]
            given = torch.cat((sample.tracks.ids, sample.pred_instances.instances_id))
            next_id = max([tracks[clip].next_id, *(1 + given).tolist()])
            sample.tracks.set_metainfo(dict(next_id=next_id))
        found = [sample.pred_instances for sample in data_samples]
        self.add_masks(feats, found, data_samples, frames)
        return data_samples


def split_queries(
    output: StageOutput, num_copies: int
) -> tuple[StageOutput, StageOutput]:
    """The queries of a decoder, and the noised copies behind them."""
    count = output.bboxes.size(1) - num_copies
    return (
        type(output)(*(values[:, :count] for values in output)),
        type(output)(*(values[:, count:] for values in output)),
    )


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
    """The decoder for a head with this number of classes."""
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
    """The sizes that query-making parts take over from the decoder."""
    return dict(num_queries=decoder.num_queries, embed_dims=decoder.embed_dims)


def frame_shapes(
    inputs: Tensor, data_samples: Sequence[ActionDataSample]
) -> FrameShapes:
    """Sizes of the frames of clips (B, 3, T_in, H, W)."""
    img_shapes = [sample.metainfo['img_shape'] for sample in data_samples]
    return FrameShapes(
        torch.tensor(img_shapes, device=inputs.device), tuple(inputs.shape[-2:])
    )
