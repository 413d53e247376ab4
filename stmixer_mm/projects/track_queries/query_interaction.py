"""Track queries: queries of found persons are carried to the next keyframe.

Shapes: B clips, keyframes of as many videos; Q queries of the decoder, n tracks of a
video, N the most of these in a batch, or 1; k persons of a keyframe, C channels.

The tracks of a video are an ``InstanceData``, ``tracks`` of its samples: ``spatial`` and
``temporal`` (n, C) query vectors and ``boxes_xyzr`` (n, 4), from when the person was
last seen; on the host, as arrays, ``bboxes`` (n, 4) of these boxes, pixel xyxy, ``ids``
(n,), and ``missed`` (n,), keyframes since then.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from mmaction.structures import ActionDataSample
from mmcv.ops import nms
from mmdet.models.layers import DetrTransformerEncoderLayer
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.models.boxes import (
    position_wavelengths,
    sine_position_code,
    xyzr_to_xyxy,
)
from stmixer_mm.models.data_preprocessor import move_together
from stmixer_mm.models.decoder.query_decoder import ExtraQueries
from stmixer_mm.models.heads.matching import score_persons, to_host
from stmixer_mm.models.parts import Batch, QueryPart
from stmixer_mm.projects.common.padding import pad_clips
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import DecoderOutput, Queries, StageOutput

NO_TRACK = -1  # id of what is no track, or a false one


@MODELS.register_module()
class QueryInteraction(QueryPart):
    """Carry queries that found persons to the next keyframe, behind the learned ones.

    Zeng et al., "MOTR: End-to-End Multiple-Object Tracking with Transformer", ECCV
    2022: a track query claims its person, so that learned queries find newcomers alone.
    Both vectors of the tracks attend among themselves, with the position code of their
    boxes in query and key, and pass a feed-forward network. In training, on sequences
    of keyframes, the truth decides whom a query tracks; some tracks are lost, and false
    ones join them. In prediction, samples have ``tracks``, from their video's keyframe
    before or :meth:`start_video`, or are seen without tracks.

    Args:
        num_heads: Heads of the attention.
        feedforward_channels: Hidden width of the feed-forward networks.
        birth_score: Person score from which a query of the decoder begins a track.
        keep_score: Person score from which a track has seen its person.
        max_missed: A track ends after not seeing its person for as many keyframes.
        max_overlap: Where boxes have a larger IoU, only the track that has moved least
            sees its person, so that tracks of persons who meet stay apart.
        drop_prob: In training, probability that a track is lost.
        false_prob: In training, probability that a false track joins a track: the query
            without a person whose box overlaps it most.
        **kwargs: See :class:`.QueryPart`.
    """

    output_type = StageOutput  # persons of keyframes, not tubelets

    def __init__(
        self,
        *,
        num_heads: int = 8,
        feedforward_channels: int = 1024,
        birth_score: float = 0.7,
        keep_score: float = 0.6,
        max_missed: int = 5,
        max_overlap: float = 0.7,
        drop_prob: float = 0.1,
        false_prob: float = 0.3,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        wavelengths = position_wavelengths(self.embed_dims)
        self.register_buffer('wavelengths', wavelengths, persistent=False)
        self.birth_score = birth_score
        self.keep_score = keep_score
        self.max_missed = max_missed
        self.max_overlap = max_overlap
        self.drop_prob = drop_prob
        self.false_prob = false_prob
        self.spatial, self.temporal = (
            DetrTransformerEncoderLayer(
                self_attn_cfg=dict(embed_dims=self.embed_dims, num_heads=num_heads),
                ffn_cfg=dict(
                    embed_dims=self.embed_dims,
                    feedforward_channels=feedforward_channels,
                ),
            )
            for _ in Queries._fields
        )

    def start(self) -> InstanceData:
        """The tracks before the first keyframe of a video: none."""
        like = self.spatial.norms[0].weight.detach()
        return InstanceData(
            metainfo=dict(next_id=0),
            spatial=like.new_zeros(0, self.embed_dims),
            temporal=like.new_zeros(0, self.embed_dims),
            boxes_xyzr=like.new_zeros(0, 4),
            bboxes=np.zeros((0, 4), np.float32),
            ids=np.zeros(0, int),
            missed=np.zeros(0, int),
        )

    def start_video(self) -> dict[str, object]:
        return dict(tracks=self.start())

    def micro_batches(self, batch: Batch) -> Iterator[Batch]:
        """All first keyframes, then all second ones, with the tracks of those before."""
        keyframes = split_keyframes(batch.data_samples)
        tracks = [self.start()] * len(batch.data_samples[keyframes[0]])
        for which in keyframes:
            turn = batch.clips(which)
            for sample, of_video in zip(turn.data_samples, tracks, strict=True):
                sample.tracks = of_video
            yield turn
            tracks = get_tracks(turn)

    def enter(self, batch: Batch) -> ExtraQueries | None:
        return self(get_tracks(batch)) if 'tracks' in batch.data_samples[0] else None

    def enter_training(self, batch: Batch) -> ExtraQueries:
        tracks = get_tracks(batch)
        return self(tracks)._replace(persons=self.match(tracks, batch.data_samples))

    def loss(
        self, batch: Batch, outputs: DecoderOutput, persons: Tensor
    ) -> dict[str, Tensor]:
        """None; but the samples get the tracks for the next keyframes.

        The host waits for the device once.
        """
        scores, bboxes = to_host(*read_last(outputs))
        persons, tables = persons.numpy(), []
        for clip, sample in enumerate(batch.data_samples):
            table = self.read(sample.tracks, scores[clip], bboxes[clip])
            rows = self.choose_by_truth(
                table, persons[clip, : self.num_queries + len(sample.tracks)], sample
            )
            tables.append(table[rows])
        self.carry(batch, outputs, tables)
        return {}

    def finish(
        self, batch: Batch, outputs: DecoderOutput, predictions: list[InstanceData]
    ) -> list[InstanceData]:
        """Predictions that have their box to themselves, with ``instances_id``.

        The host waits for the device once.
        """
        if 'tracks' not in batch.data_samples[0]:
            return predictions
        scores, bboxes, queries = to_host(
            *read_last(outputs),
            torch.cat([instances.queries for instances in predictions]),
        )
        counts = [*map(len, predictions)]
        queries = np.split(queries.astype(int), np.cumsum(counts)[:-1])
        tables, rows_of_clips, ids_of_clips = [], [], []
        for clip, sample in enumerate(batch.data_samples):
            table = self.read(sample.tracks, scores[clip], bboxes[clip])
            rows, ids = self.choose_by_scores(table, sample.tracks)
            ids = np.pad(ids, (0, len(scores[clip])), constant_values=NO_TRACK)
            ids = ids[queries[clip]]
            rows_of_clips.append((ids != NO_TRACK).nonzero()[0])
            ids_of_clips.append(ids[ids != NO_TRACK])
            tables.append(table[rows])
            track_ids = map(int, (*tables[-1].ids, *ids_of_clips[-1]))
            next_id = max(
                [sample.tracks.next_id, *(number + 1 for number in track_ids)]
            )
            tables[-1].set_metainfo(dict(next_id=next_id))
        self.carry(batch, outputs, tables)
        tensors = [*map(torch.from_numpy, rows_of_clips + ids_of_clips)]
        tensors = move_together(tensors, outputs.boxes_xyzr.device)
        num_clips = len(predictions)
        results = []
        for instances, rows, ids in zip(
            predictions, tensors[:num_clips], tensors[num_clips:], strict=True
        ):
            instances = instances if len(rows) == len(instances) else instances[rows]
            instances.instances_id = ids
            results.append(instances)
        return results

    def forward(self, tracks: Sequence[InstanceData]) -> ExtraQueries:
        """The tracks of B videos as N queries; padding is last, and unseen."""
        fields = [
            [clip_tracks[name] for clip_tracks in tracks]
            for name in ('spatial', 'temporal', 'boxes_xyzr')
        ]
        (spatial, temporal, boxes_xyzr), padding, _ = pad_clips(fields)
        # An attention that sees nothing is NaN: without any track it sees padding.
        unseen = padding & ~padding.all(dim=1, keepdim=True)
        code = sine_position_code(boxes_xyzr, self.wavelengths)
        queries = Queries(
            spatial=self.spatial(spatial, code, unseen),
            temporal=self.temporal(temporal, code, unseen),
        )
        blocked = padding[:, None].expand(-1, padding.size(1), -1)
        return ExtraQueries(queries, boxes_xyzr, blocked, hidden=padding)

    def match(
        self, tracks: Sequence[InstanceData], data_samples: Sequence[ActionDataSample]
    ) -> Tensor:
        """The person of each track in the next keyframe, by the truth.

        Returns:
            ``known`` of :meth:`.SetCriterion.loss`, (B, N).
        """
        persons = np.full((len(tracks), max(1, *map(len, tracks))), -1)
        for clip_persons, clip_tracks, sample in zip(
            persons, tracks, data_samples, strict=True
        ):
            same = clip_tracks.ids[:, None] == person_ids(sample)
            # Column 0: none.
            clip_persons[: len(clip_tracks)] = np.pad(same, ((0, 0), (1, 0))).argmax(
                axis=1
            )
        return torch.from_numpy(persons)

    def read(
        self, tracks: InstanceData, scores: np.ndarray, bboxes: np.ndarray
    ) -> InstanceData:
        """The Q + n queries of a clip, without ids, then its n tracks, who are missed.

        Args:
            tracks: Those of this keyframe.
            scores: Person scores of the queries, (Q + N,).
            bboxes: Pixel xyxy of the queries, (Q + N, 4).

        Returns:
            ``ids``, ``missed`` and ``bboxes``, as tracks have them, ``scores`` and
            ``rows`` (Q + 2 n,), all on the host.
        """
        count, size = self.num_queries + len(tracks), len(tracks)
        return InstanceData(
            metainfo=tracks.metainfo,
            rows=np.arange(count + size),
            scores=np.pad(scores[:count], (0, size)),
            bboxes=np.concatenate((bboxes[:count], tracks.bboxes)),
            ids=np.append(np.full(count, NO_TRACK), tracks.ids),
            missed=np.append(np.zeros(count, int), tracks.missed + 1),
        )

    def choose_by_truth(
        self, table: InstanceData, persons: np.ndarray, sample: ActionDataSample
    ) -> np.ndarray:
        """Rows of the tracks of a clip for the next keyframe, by the truth.

        Args:
            table: From :meth:`read`; queries get the ids of their persons.
            persons: Of the Q + n queries, see :meth:`.QueryPart.loss`.
            sample: The ground truth.
        """
        ids, count = person_ids(sample), len(persons)
        numbers = np.unique(persons[persons > 0])
        # Of several queries of a person, that with the highest score.
        matched_rows = [
            np.where(persons == number, table.scores[:count], -1).argmax()
            for number in numbers
        ]
        table.ids[matched_rows] = ids[numbers - 1]
        lost = (table.ids != NO_TRACK) & ~np.isin(table.ids, ids)
        lost &= (table.rows >= count) & (table.missed < self.max_missed)
        rows = np.append(matched_rows, lost.nonzero()[0]).astype(int)
        rows = rows[torch.rand(len(rows)).numpy() >= self.drop_prob]
        joined = rows[torch.rand(len(rows)).numpy() < self.false_prob]
        idle = (persons[: self.num_queries] == 0).nonzero()[0]
        if len(joined) and len(idle):
            overlaps = overlap(table.bboxes[joined], table.bboxes[idle])
            rows = np.append(rows, idle[np.unique(overlaps.argmax(axis=1))])
        return rows[: self.num_queries]

    def choose_by_scores(
        self, table: InstanceData, tracks: InstanceData
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same, by the scores; see :meth:`choose_by_truth`.

        Returns:
            The rows, and the ids (Q + n,) of all queries. Those without a track have
            new ids, in the order of their scores; those that lost their box to another
            one have ``NO_TRACK``.
        """
        num_queries, count = self.num_queries, self.num_queries + len(tracks)
        bboxes, scores = table.bboxes[:count], table.scores[:count]
        new_scores, track_scores = np.split(scores, [num_queries])
        overlaps = overlap(bboxes[num_queries:], tracks.bboxes, is_aligned=True)
        is_sure = track_scores >= self.keep_score
        # A shared box goes to the sure track that moved least, else to the surest.
        claims = np.append(new_scores, np.where(is_sure, 1 + overlaps, track_scores))
        # On the host, where every mmcv has the operator.
        pair = map(torch.from_numpy, (bboxes, claims))
        _, winners = nms(*pair, iou_threshold=self.max_overlap)
        wins = np.zeros(count, bool)
        wins[winners.numpy()] = True
        places = (-new_scores).argsort(kind='stable').argsort()
        table.ids[:count] = np.append(tracks.next_id + places, tracks.ids)
        is_seen = wins[num_queries:] & is_sure
        is_lost = ~is_seen & (table.missed[count:] < self.max_missed)
        is_born = wins[:num_queries] & (new_scores >= self.birth_score)
        seen_rows = num_queries + is_seen.nonzero()[0]
        lost_rows = count + is_lost.nonzero()[0]
        rows = np.concatenate((seen_rows, lost_rows, is_born.nonzero()[0]))
        return rows[:num_queries], np.where(wins, table.ids[:count], NO_TRACK)

    def carry(
        self, batch: Batch, outputs: DecoderOutput, tables: Sequence[InstanceData]
    ) -> None:
        """Give the samples their next tracks: what is chosen of :meth:`read`."""
        tracks, (clips, size) = get_tracks(batch), outputs.boxes_xyzr.shape[:2]
        firsts = clips * size + np.cumsum([0, *map(len, tracks)])
        index = [
            np.where(
                table.rows < self.num_queries + len(clip_tracks),
                clip * size + table.rows,
                first + table.rows - self.num_queries - len(clip_tracks),
            )
            for clip, (clip_tracks, table, first) in enumerate(
                zip(tracks, tables, firsts[:-1], strict=True)
            )
        ]
        index = torch.from_numpy(np.concatenate(index))
        (index,) = move_together([index], outputs.boxes_xyzr.device)
        fields = dict(
            spatial=outputs.queries.spatial.float(),
            temporal=outputs.queries.temporal.float(),
            boxes_xyzr=outputs.boxes_xyzr.detach(),
        )
        for name, values in fields.items():
            values = torch.cat(
                [values.flatten(0, 1), *(clip_tracks[name] for clip_tracks in tracks)]
            )
            fields[name] = values[index].split([*map(len, tables)])
        for sample, table, *values in zip(
            batch.data_samples, tables, *fields.values(), strict=True
        ):
            sample.tracks = InstanceData(
                metainfo=table.metainfo,
                **dict(zip(fields, values, strict=True)),
                **{name: table[name] for name in ('bboxes', 'ids', 'missed')},
            )


def read_last(outputs: DecoderOutput) -> tuple[Tensor, Tensor]:
    """Person scores (B, Q + N) and pixel boxes (B, Q + N, 4) of the last stage."""
    person_logits = outputs.stages[-1].person_logits.float()
    return score_persons(person_logits), xyzr_to_xyxy(outputs.boxes_xyzr)


def get_tracks(batch: Batch) -> list[InstanceData]:
    return [sample.tracks for sample in batch.data_samples]


def person_ids(sample: ActionDataSample) -> np.ndarray:
    """Ids of a sample's persons in its video, (k,)."""
    return torch.as_tensor(sample.entity_ids).cpu().numpy()


def overlap(
    bboxes1: np.ndarray, bboxes2: np.ndarray, *, is_aligned: bool = False
) -> np.ndarray:
    pair = map(torch.from_numpy, (bboxes1, bboxes2))
    return bbox_overlaps(*pair, is_aligned=is_aligned).numpy()


def split_keyframes(data_samples: Sequence[ActionDataSample]) -> list[slice]:
    """Slices: the samples of the first keyframe of each sequence, of the second, ….

    Raises:
        UserError: They are no sequences of keyframes, or lack identities.
    """
    num_keyframes = data_samples[-1].get('sequence_place', 0) + 1
    if num_keyframes < 2 or 'entity_ids' not in data_samples[0]:
        raise UserError(
            'query_interaction learns from sequences of keyframes, with identities; '
            'take KeyframeSequences, of a dataset whose pipeline ends with '
            "PackActionInputs(algorithm_keys=('entity_ids',))."
        )
    size = len(data_samples) // num_keyframes
    return [slice(start, start + size) for start in range(0, len(data_samples), size)]
